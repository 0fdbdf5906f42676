"""The JSON Schema of a configuration, so that editors complete and check it."""

import json
from typing import Any

from utils.catalogue import Catalogue


def json_schema(catalogue: Catalogue) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a configuration."""
    raise NotImplementedError


def schema_text(catalogue: Catalogue) -> str:
    """The schema as text, the same on every machine."""
    return f"{json.dumps(json_schema(catalogue), indent=2, ensure_ascii=False)}\n"
