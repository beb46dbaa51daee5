"""The interactive page of the API: Swagger UI, from an installed package, reading the OpenAPI document of what serves now.

Nothing of it comes from elsewhere, and its Content-Security-Policy lets nothing else in. Swagger UI sets styles on its elements, which
therefore are allowed inline.
"""

from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

_SWAGGER, _OWN = "fastapi_swagger.resources", "mlops_assets.serving.online"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class _File(NamedTuple):
    package: str
    path: str
    media_type: str


_FILES = {
    "/docs": _File(_OWN, "static/api.html", "text/html"),
    "/docs/start.js": _File(_OWN, "static/start.js", "text/javascript"),
    "/docs/swagger-ui.js": _File(_SWAGGER, "swagger-ui-bundle.js", "text/javascript"),
    "/docs/swagger-ui.css": _File(_SWAGGER, "swagger-ui.css", "text/css"),
    "/docs/favicon.png": _File(_SWAGGER, "favicon-32x32.png", "image/png"),
}
PATHS = tuple(_FILES)
"""Where the page and its parts are found."""


@lru_cache
def read_file(path: str) -> tuple[bytes, str]:
    """Content and media type of one of `PATHS`."""
    file = _FILES[path]
    return files(file.package).joinpath(file.path).read_bytes(), file.media_type
