"""`mrmt3 serve`: a page and an HTTP API that transcribe, and the same page as a single file.

`app` has the routes, `worker` decodes, `jobs` and `store` hold what is queued and finished, `safety` refuses requests
of other sites, and `static` is the page. docs/serve.md describes the API.
"""
