"""Which format a document has, and the mappings in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from consumer.cli.lambda_import.document import is_terraform, parse
from consumer.cli.lambda_import.found import Contents, NotAMapping
from consumer.cli.lambda_import.intrinsics import Resolver
from consumer.cli.lambda_import.parameters import Parameters
from consumer.cli.lambda_import.sources.cloudformation import is_resource, one_resource, template_mappings
from consumer.cli.lambda_import.sources.lambda_cli import is_mapping, listed_mappings, one_mapping
from consumer.cli.lambda_import.sources.serverless import is_serverless, serverless_mappings
from consumer.cli.lambda_import.sources.terraform_files import terraform_file_mappings
from consumer.cli.lambda_import.sources.terraform_json import is_terraform_json, terraform_mappings

FORMATS = (
    "the output of `aws lambda get-event-source-mapping` or `list-event-source-mappings`, a template of "
    "CloudFormation, SAM or CDK, serverless.yml, a .tf file, or the output of `terraform show -json`"
)


def contents_of_text(text: str, parameters: Parameters, *, terraform: bool = False) -> Contents:
    """All mappings of the text of a file; ``terraform`` when its name says that it is a ``.tf`` file.

    Raises:
        NotAMapping: it is malformed, no object, or a parameter was given that it does not use.
    """
    document: Any = None
    if not terraform:
        try:
            document = parse(text)
            if isinstance(document, Mapping) and is_serverless(document):
                document = parse(text, yaml_1_2=True)
        except NotAMapping:
            if not is_terraform(text):
                raise
    if terraform or (not isinstance(document, Mapping | list) and is_terraform(text)):  # some of it is a text in YAML
        contents = terraform_file_mappings({"": text}, parameters)
    else:
        contents = contents_of(document, parameters)
    if contents.mappings:
        parameters.require_known()
    return contents


def contents_of(document: Any, parameters: Parameters) -> Contents:
    """All mappings of a document of any format; none in one that holds something else.

    Raises:
        NotAMapping: it is no object, or a template inside of it is malformed.
    """
    try:
        return _contents_of(document, parameters)
    except RecursionError:
        raise NotAMapping("is nested too deeply") from None


def _contents_of(document: Any, parameters: Parameters) -> Contents:
    if isinstance(document, list) and any(isinstance(one, Mapping) and is_mapping(one) for one in document):
        document = {"EventSourceMappings": document}  # --query EventSourceMappings
    if not isinstance(document, Mapping):
        raise NotAMapping(f"is no event source mapping: it holds {_kind(document)}, not an object")
    if "TemplateBody" in document:  # aws cloudformation get-template; a template in YAML is a text there
        body = document["TemplateBody"]
        return contents_of(parse(body) if isinstance(body, str) else body, parameters)
    if isinstance(document.get("EventSourceMappings"), list):
        return listed_mappings(Resolver({}, parameters).resolve(document))
    if is_terraform_json(document):
        return terraform_mappings(document)
    if is_serverless(document):
        return serverless_mappings(document, parameters)
    if isinstance(document.get("Resources"), Mapping):
        return template_mappings(document, parameters)
    if is_resource(document):
        return one_resource(document, parameters)
    if is_mapping(document):
        return Contents([one_mapping(Resolver({}, parameters).resolve(document))])
    return Contents()


def _kind(document: Any) -> str:
    if document is None:
        return "nothing"
    return "a list" if isinstance(document, list) else f"a single {type(document).__name__}"
