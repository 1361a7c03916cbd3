"""Croissant metadata (mlcommons.org/croissant): files with their checksums, and the preview's columns, for catalogues.

What the format requires and only the owner can say, who made the data and where it is found, is left out where it was
not given: ``lacking`` names it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from hexshards.errors import printable, without_secrets
from hexshards.publishing.card import Card, preview_name
from hexshards.publishing.preview import Field, fields_of

NAME = "croissant.json"

REQUIRED = ("name", "description", "license", "url", "creator", "datePublished", "distribution")
"""Properties that Croissant 1.0 requires of a dataset, besides what every file of the format begins with."""

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "equivalentProperty": "cr:equivalentProperty",
    "samplingRate": "cr:samplingRate",
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context that the format recommends."""


def croissant_of(card: Card, previews: Mapping[str, bytes], *, published: str) -> bytes:
    """The file; ``previews``: the Parquet files by split. ``published``: the day, as 2026-11-28."""
    spec, index = card.spec, card.index
    url = spec.homepage or (card.place if "://" in card.place else "")
    entry = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": _plain(card.name),
        "description": _plain(card.lead),
        "license": spec.license,
        "url": _plain(url),
        "creator": {"@type": "sc:Person", "name": _plain(spec.creator)} if spec.creator else "",
        "datePublished": published,
        "version": f"1.0.0+{index.fingerprint[:12]}",
        "keywords": ["hex", "board games"],
        "distribution": [*_files(card, previews)],
        "recordSet": [_records(card, split) for split in index.splits],
    }
    return json.dumps({name: said for name, said in entry.items() if said}, indent=1).encode()


def lacking(file: bytes) -> list[str]:
    """What the format requires and a file does not say."""
    return [name for name in REQUIRED if not json.loads(file).get(name)]


def day_of(file: bytes | None) -> str:
    """When a file that is there says that it was published; nothing where it says nothing."""
    try:
        return str(json.loads(file or b"")["datePublished"])[:10]
    except (ValueError, KeyError, TypeError):
        return ""


def _plain(said: str) -> str:
    return printable(without_secrets(said), width=500)


def _files(card: Card, previews: Mapping[str, bytes]) -> Iterator[dict[str, str]]:
    for split, data in previews.items():
        name, digest = preview_name(split), hashlib.sha256(data).hexdigest()
        yield _file(name, len(data), digest, kind="application/x-parquet")
    for each in card.index.splits.values():
        for shard in each.shards:
            yield _file(shard.name, shard.size_bytes, shard.sha256, kind="application/x-tar")


def _file(name: str, size: int, digest: str, *, kind: str) -> dict[str, str]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{size} B",
        "encodingFormat": kind,
        "sha256": digest,
    }


_TYPES = {"string": "sc:Text", "float": "sc:Float"}
"""Of Arrow's types; of others whole numbers."""


def _records(card: Card, split: str) -> dict[str, Any]:
    fields = [_field(each, split) for each in fields_of(card.index) if "struct" not in each.kind]
    return {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "description": f"Single positions of {split}, drawn at random; all of them are in the tars.",
        "field": fields,
    }


def _field(field: Field, split: str) -> dict[str, Any]:
    inner = field.kind.removeprefix("list<").removesuffix(">")
    repeated = {"repeated": True} if inner != field.kind else {}
    return {
        "@type": "cr:Field",
        "@id": f"{split}/{field.name}",
        "name": field.name,
        "description": field.doc,
        "dataType": _TYPES.get(inner, "sc:Integer"),
        **repeated,
        "source": {"fileObject": {"@id": preview_name(split)}, "extract": {"column": field.name}},
    }
