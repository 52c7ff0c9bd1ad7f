"""``/v1/openapi.json``, piece by piece: schemas, parameters, answers, paths, and the document of them all."""
