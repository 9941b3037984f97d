# The server of docs/serve.md in a container. Not built or run in this project's tests: check it before you rely on it.
#
#   docker build -t mrmt3 .
#   docker run --rm -p 127.0.0.1:8765:8765 -e MRMT3_TOKEN="$(openssl rand -hex 16)" -v mrmt3-data:/data mrmt3
FROM python:3.12-slim

RUN useradd --create-home --uid 1000 mrmt3 && install -d -o mrmt3 /data
COPY . /src
RUN pip install --no-cache-dir '/src[web,m4a,score]' && rm -rf /src
USER mrmt3
ENV JAX_PLATFORMS=cpu PYTHONUNBUFFERED=1
EXPOSE 8765
VOLUME /data
HEALTHCHECK --start-period=60s CMD python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8765/health')"
# A container's address is not loopback, so MRMT3_TOKEN must be set.
ENTRYPOINT ["mrmt3", "serve", "--host", "0.0.0.0", "--no-browser", "--data", "/data"]
