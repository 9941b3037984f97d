"""The OpenAPI document of the server."""

from mrmt3.version import __version__
from mrmt3.web import jobs, rendering, wire

_NULLABLE_NUMBER = {'type': ['number', 'null']}
_NULLABLE_TEXT = {'type': ['string', 'null']}
_EVENT = {
  'type': 'object',
  'properties': {'event': {'type': 'string'}, 'id': {'type': 'string'}, 'data': {'type': 'string'}},
}
_ANY_BINARY = {'type': 'string', 'format': 'binary'}


def document() -> dict:
  """Return the OpenAPI 3.1 document."""
  return {
    'openapi': '3.1.0',
    'info': {
      'title': 'mrmt3',
      'version': __version__,
      'description': 'Audio in, multi-track MIDI out. Errors are JSON: {"error": one line}.',
      'license': {'name': 'Apache-2.0', 'identifier': 'Apache-2.0'},
    },
    'servers': [{'url': '/'}],
    'security': [{}, {'token': []}],
    'paths': _paths(),
    'components': {
      'securitySchemes': {'token': {'type': 'http', 'scheme': 'bearer'}},
      'schemas': _schemas(),
    },
  }


def _paths():
  job = {'$ref': '#/components/schemas/Job'}
  job_id = {
    'name': 'id',
    'in': 'path',
    'required': True,
    'schema': {'type': 'string', 'pattern': '^[A-Za-z0-9_-]{22}$'},
  }
  kind = {'name': 'kind', 'in': 'path', 'required': True, 'schema': {'type': 'string', 'enum': list(rendering.KINDS)}}
  decoding = [
    _query('instruments', {'type': 'string', 'maxLength': 2000}, 'the only ones that there are: piano,bass,drums'),
    _query('memory', {'enum': list(jobs.MEMORY_MODES)}, 'none decodes every segment as if it were the first'),
  ]
  score = [
    _query('tempo', {'type': 'string', 'maxLength': 40}, 'auto, beats per minute, or none'),
    _query('quantize', {'type': 'string', 'maxLength': 40}, 'a grid: 1/16, or 1/16,triplets'),
  ]
  files = {media: {'schema': {} if 'json' in media else _ANY_BINARY} for media, _ in rendering.KINDS.values()}
  created = _json('the job', job)
  return {
    '/health': {'get': _operation('health', {200: _json('decoding', _object(status=_text(), version=_text()))}, 503)},
    '/metrics': {'get': _operation('metrics', {200: _content('counters', {'text/plain': {'schema': _text()}})})},
    '/api/model': {'get': _operation('model', {200: _json('the model and the limits', {'type': 'object'})})},
    '/api/openapi.json': {'get': _operation('openapi', {200: _json('this document', {'type': 'object'})})},
    '/api/jobs': {
      'get': _operation('list_jobs', {200: _json('newest first', _object(jobs={'type': 'array', 'items': job}))}),
      'post': {
        **_operation('create_job', {201: created}, 408, 413, 422, 429, 507),
        'parameters': [*decoding, _query('name', {'type': 'string', 'maxLength': 2000}, 'name of the file, to show')],
        'requestBody': {
          'required': True,
          'content': {
            'application/octet-stream': {'schema': _ANY_BINARY},
            'multipart/form-data': {'schema': _object(file=_ANY_BINARY)},
          },
        },
      },
    },
    '/api/jobs/{id}': {
      'parameters': [job_id],
      'get': _operation('show_job', {200: _json('the job', job)}, 404),
      'delete': _operation('remove_job', {204: {'description': 'cancelled, or removed if it was finished'}}, 404),
    },
    '/api/jobs/{id}/again': {
      'parameters': [job_id],
      'post': {**_operation('decode_again', {201: created}, 404, 409, 422, 429, 507), 'parameters': decoding},
    },
    '/api/jobs/{id}/events': {
      'parameters': [job_id],
      'get': _operation(
        'job_events',
        {200: _content('events state, notes and end', {'text/event-stream': {'schema': _EVENT}})},
        404,
      ),
    },
    '/api/jobs/{id}/notes': {
      'parameters': [job_id],
      'get': _operation('job_notes', {200: _json('the notes so far', {'$ref': '#/components/schemas/Notes'})}, 404),
    },
    '/api/jobs/{id}/audio': {
      'parameters': [job_id],
      'get': {
        **_operation(
          'job_audio',
          {
            200: _content(
              'the uploaded file',
              {media: {'schema': _ANY_BINARY} for media in ('application/octet-stream', 'audio/flac')},
            ),
            206: {'description': 'a range of it'},
            416: {'description': 'no such range'},
          },
          404,
          409,
          422,
        ),
        'parameters': [_query('format', {'enum': ['original', 'flac']}, 'as it is, or mono at 44.1 kHz')],
      },
    },
    '/api/jobs/{id}/{kind}': {
      'parameters': [job_id, kind],
      'get': {
        **_operation('job_result', {200: _content('the file', files)}, 404, 409, 422),
        'parameters': [
          *score,
          _query('program', {'type': 'integer', 'minimum': 0, 'maximum': 127}, 'only this instrument'),
          _query('drums', {'enum': ['true', 'false']}, 'true: only the drums'),
        ],
      },
    },
    '/api/render/{kind}': {
      'parameters': [kind],
      'post': {
        **_operation('render', {200: _content('the file', files)}, 404, 413, 422),
        'requestBody': {
          'required': True,
          'content': {'application/json': {'schema': {'$ref': '#/components/schemas/RenderRequest'}}},
        },
      },
    },
  }


def _schemas():
  note = _object(
    onset={'type': 'number', 'minimum': 0, 'maximum': wire.MAX_SECONDS, 'description': 's'},
    offset={'type': 'number', 'minimum': 0, 'maximum': wire.MAX_SECONDS, 'description': 's, after the onset'},
    pitch={'type': 'integer', 'minimum': 0, 'maximum': 127},
    velocity={'type': 'integer', 'minimum': 1, 'maximum': 127},
    program={'type': 'integer', 'minimum': 0, 'maximum': 127},
    is_drum={'type': 'boolean'},
  )
  note['properties'] |= {
    'instrument': {'type': 'string', 'description': 'name; ignored in requests'},
    'confidence': {**_NULLABLE_NUMBER, 'minimum': 0, 'maximum': 1, 'description': 'missing if it is not known'},
  }
  note['required'] = [name for name in note['required'] if name not in ('velocity', 'is_drum')]
  notes = {'type': 'array', 'items': {'$ref': '#/components/schemas/Note'}, 'maxItems': wire.MAX_NOTES}
  job = _object(
    id=_text(),
    name=_text(),
    state={'enum': list(jobs.STATES)},
    position={'type': ['integer', 'null'], 'description': 'place in the queue, from 1'},
    seconds={**_NULLABLE_NUMBER, 'description': 'length of the audio, if it is known'},
    done_seconds={'type': 'number', 'description': 'how much of it is decoded'},
    notes={'type': 'integer'},
    instruments={
      'type': 'array',
      'items': _object(
        program={'type': 'integer'}, is_drum={'type': 'boolean'}, name=_text(), notes={'type': 'integer'}
      ),
    },
    options={'type': 'object'},
    warnings={'type': 'array', 'items': _text()},
    error=_NULLABLE_TEXT,
    created={'type': 'number'},
    started=_NULLABLE_NUMBER,
    finished=_NULLABLE_NUMBER,
  )
  render = _object(notes=notes)
  render['properties'] |= {
    'title': _text(),
    'seconds': {'type': ['number', 'null'], 'minimum': 0, 'maximum': wire.MAX_SECONDS},
    'tempo': _NULLABLE_TEXT,
    'quantize': _NULLABLE_TEXT,
  }
  return {
    'Error': _object(error=_text()),
    'Note': note,
    'Notes': _object(id=_text(), state={'enum': list(jobs.STATES)}, notes=notes),
    'Job': job,
    'RenderRequest': render,
  }


_ERRORS = {
  404: 'not found',
  408: 'the upload stalls',
  409: 'the job is in another state',
  413: 'too large',
  422: 'the request or the audio cannot be used',
  429: 'the queue is full',
  503: 'decoding has stopped',
  507: 'the disk is full',
}


def _operation(name, responses, *errors):
  schema = {'$ref': '#/components/schemas/Error'}
  failures = {status: _json(_ERRORS[status], schema) for status in errors}
  failures |= {
    401: _json('the token is missing', schema),
    403: _json('a request of another site', schema),
    421: _json('another name of the server', schema),
  }
  if 503 in errors:
    failures[503] = responses[200]
  return {'operationId': name, 'responses': {str(status): value for status, value in (responses | failures).items()}}


def _query(name, schema, text):
  return {'name': name, 'in': 'query', 'required': False, 'schema': schema, 'description': text}


def _object(**properties):
  return {'type': 'object', 'properties': properties, 'required': list(properties)}


def _text():
  return {'type': 'string'}


def _json(text, schema):
  return _content(text, {'application/json': {'schema': schema}})


def _content(text, content):
  return {'description': text, 'content': content}
