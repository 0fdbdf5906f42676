"""All about the JSON: read it, check it, build what it describes. Knows no model: it is given the registry."""

from config.checking.classes import load_plugins
from config.checking.sections import trainer_options
from config.checking.specs import shared_values
from config.checking.validate import validate
from config.loading.load import load_config
from config.markers import find_markers, refuse_markers
from config.objects import class_and_arguments, instantiate, instantiate_list
from config.schema import json_schema, schema_text

__all__ = [
    "class_and_arguments",
    "find_markers",
    "instantiate",
    "instantiate_list",
    "json_schema",
    "load_config",
    "load_plugins",
    "refuse_markers",
    "schema_text",
    "shared_values",
    "trainer_options",
    "validate",
]
