"""Bundles of ConfigMaps, kept in memory as long as their ConfigMaps stay as they are."""

import asyncio
import base64
import contextlib
from collections import OrderedDict
from dataclasses import dataclass

from database_bootstrap.api import names
from database_bootstrap.bundles.bundle import SCRIPTS, Bundle, Limits
from database_bootstrap.bundles.sources import ConfigMapData, bundle_of_config_maps
from database_bootstrap.errors import ReferenceNotFound
from database_bootstrap.kube import client
from database_bootstrap.kube.client import CONFIG_MAPS, METADATA_ONLY, Json, Kube

LIMIT_BYTES = 64 * 1024 * 1024
AT_ONCE = 4
"""ConfigMaps under way: each takes several times its size until it is decoded."""

_Place = tuple[str, tuple[str, ...], Limits]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    versions: tuple[str, ...]
    bundle: Bundle
    size: int


class Library:
    """Reads a ConfigMap in full only when its resourceVersion is not the one that was read before."""

    def __init__(self, kube: Kube, limit: int = LIMIT_BYTES) -> None:
        self._kube = kube
        self._limit = limit
        self._size = 0
        self._kept: OrderedDict[_Place, _Kept] = OrderedDict()
        self._watched: dict[tuple[str, str], str] = {}
        self._reading = asyncio.Semaphore(AT_ONCE)
        self._unpacking = asyncio.Lock()

    def note(self, namespace: str, name: str, version: str | None) -> None:
        """Take the watch's word for the version of a ConfigMap, which spares a call; None: it is out of sight."""
        if version is None:
            self._watched.pop((namespace, name), None)
        else:
            self._watched[namespace, name] = version

    def watched(self) -> set[tuple[str, str]]:
        """Return the ConfigMaps of which a watch tells."""
        return set(self._watched)

    async def bundle(self, namespace: str, names: tuple[str, ...], limits: Limits = SCRIPTS) -> Bundle:
        """Return the merged files; raise `ReferenceNotFound`, or `BundleRejected` for what cannot be used."""
        place = (namespace, names, limits)
        kept = self._kept.get(place)
        if kept is not None and await self._are_still(namespace, names, kept.versions):
            self._kept.move_to_end(place)
            return kept.bundle
        maps = await asyncio.gather(*(self._read_whole(namespace, name) for name in names))
        # Hundreds of megabytes take a second to unpack, and what else there is to do shall not wait for that; so do
        # several such, one after the other.
        async with self._unpacking if limits.packs else contextlib.nullcontext():
            bundle, size = await asyncio.to_thread(_unpacked, [data for _, data in maps], limits)
        self._keep(place, _Kept(versions=tuple(version for version, _ in maps), bundle=bundle, size=size))
        return bundle

    async def _are_still(self, namespace: str, names: tuple[str, ...], versions: tuple[str, ...]) -> bool:
        now = await asyncio.gather(*(self._version_now(namespace, name) for name in names))
        return tuple(now) == versions

    async def _version_now(self, namespace: str, name: str) -> str:
        known = self._watched.get((namespace, name))
        return known or _version(await self._read(namespace, name, METADATA_ONLY))

    async def _read_whole(self, namespace: str, name: str) -> tuple[str, ConfigMapData]:
        async with self._reading:
            raw = await self._read(namespace, name)
            return _version(raw), _data(raw)

    async def _read(self, namespace: str, name: str, accept: str = client.JSON) -> Json:
        try:
            return await self._kube.get(CONFIG_MAPS, namespace, name, accept=accept)
        except client.NotFoundError:
            raise ReferenceNotFound(f'The ConfigMap "{name}" is not there.') from None

    def _keep(self, place: _Place, new: _Kept) -> None:
        before = self._kept.pop(place, None)
        self._kept[place] = new
        self._size += new.size - (before.size if before else 0)
        # The newest stays, however large: a visit that finds nothing to do shall not fetch and unpack it each time.
        while self._size > self._limit and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._size -= oldest.size


def _unpacked(maps: list[ConfigMapData], limits: Limits) -> tuple[Bundle, int]:
    bundle = bundle_of_config_maps(maps, limits)
    _ = bundle.digest  # Kept with it, and it takes its time too.
    return bundle, bundle.memory


def _version(raw: Json) -> str:
    return str(raw["metadata"]["resourceVersion"])


def _data(raw: Json) -> ConfigMapData:
    binary = raw.get("binaryData") or {}
    return ConfigMapData(
        name=raw["metadata"]["name"],
        data=raw.get("data") or {},
        binary_data={key: base64.b64decode(value) for key, value in binary.items()},
        part=(raw["metadata"].get("annotations") or {}).get(names.ANNOTATION_BUNDLE),
    )
