"""The HTTP front end: aiohttp's connection handling, our own dispatch. ``server.HttpServer`` is its door."""
