"""The two Secrets that the operator makes: they outlive their resource, and a foreign one is never touched."""

import base64
from collections.abc import Mapping
from typing import Any

from database_bootstrap.api import binding, names
from database_bootstrap.api.binding import Connection
from database_bootstrap.errors import ClusterUnavailable, NotOwned
from database_bootstrap.kube import client
from database_bootstrap.kube.client import MERGE, SECRETS, Call, Kube
from database_bootstrap.kube.resource import Key

ATTEMPTS = 3


async def keep_password(
    kube: Kube, owner: tuple[Key, str], name: str, data: Mapping[str, str], rotation: str | None
) -> bool:
    """Make the Secret of a password; return False where one of that name exists, and leave what it holds alone.

    One that an earlier resource of this name has made carries this one's uid from then on.
    """
    (key, _) = owner
    wanted = _manifest(name, names.PASSWORD_SECRET_TYPE, owner, data)
    wanted["metadata"]["annotations"] |= {names.ANNOTATION_ROTATED: rotation} if rotation else {}
    try:
        await kube.create(SECRETS, key.namespace, wanted)
    except client.ConflictError:
        await _take_back(kube, owner, name)
        return False
    return True


async def _take_back(kube: Kube, owner: tuple[Key, str], name: str) -> None:
    (key, _) = owner
    try:
        found = await kube.get(SECRETS, key.namespace, name)
        if is_ours(found, owner) and not is_made_by(found, owner):
            await kube.send(_merge(found, _annotations(owner), {}))
    except (client.NotFoundError, client.ConflictError):
        raise ClusterUnavailable(f'The Secret "{name}" was changed while it was looked at.') from None


async def replace_password(
    kube: Kube, owner: tuple[Key, str], name: str, data: Mapping[str, str], rotation: str
) -> None:
    """Write another password into the Secret of one, with the word on which that was done: both or none."""
    (key, _) = owner
    try:
        found = await kube.get(SECRETS, key.namespace, name)
        if not is_ours(found, owner):
            raise NotOwned(f'The Secret "{name}" is not this resource\'s any more.')
        annotations = _annotations(owner) | {names.ANNOTATION_ROTATED: rotation}
        await kube.send(_merge(found, annotations, _encoded(data)))
    except (client.NotFoundError, client.ConflictError):
        raise ClusterUnavailable(f'The Secret "{name}" was changed while it was written.') from None


async def publish(kube: Kube, owner: tuple[Key, str], name: str, connection: Connection, pin: str | None) -> None:
    """Write the connection Secret, and the incarnation to pin as an annotation on it.

    Raise `NotOwned` where a Secret of that name is not this resource's.
    """
    (key, _) = owner
    wanted = _manifest(name, names.CONNECTION_SECRET_TYPE, owner, binding.secret_data(connection))
    wanted["metadata"]["annotations"] |= {names.ANNOTATION_INCARNATION: pin} if pin else {}
    for _ in range(ATTEMPTS):
        try:
            await kube.create(SECRETS, key.namespace, wanted)
        except client.ConflictError:
            if await _renewed(kube, owner, wanted):
                return
        else:
            return
    raise ClusterUnavailable(f'The Secret "{name}" was changed {ATTEMPTS} times while it was written.')


async def delete(kube: Kube, owner: tuple[Key, str], name: str) -> bool | None:
    """Delete the Secret that was made for this very resource; False where it was not, and None where there is none.

    One that an earlier resource of the name has made stays: what that one has left behind may need it still.
    """
    (key, _) = owner
    try:
        found = await kube.get(SECRETS, key.namespace, name)
        if not is_made_by(found, owner):
            return False
        # The one that was looked at, as it was: one of the same name that is made or changed meanwhile stays.
        seen = {it: found["metadata"][it] for it in ("uid", "resourceVersion")}
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": seen}
        await kube.send(Call(verb="delete", kind=SECRETS, namespace=key.namespace, name=name, body=body))
    except client.NotFoundError:
        return None
    except client.ConflictError:
        raise ClusterUnavailable(f'The Secret "{name}" was changed while it was being deleted.') from None
    return True


def is_ours(raw: Mapping[str, Any], owner: tuple[Key, str]) -> bool:
    """Return whether the Secret was made for this resource, or for one of its name that was here before.

    A GitOps tool prunes a resource and applies it again; it has another uid then, and it is the same to everybody.
    """
    (key, _) = owner
    annotations = raw["metadata"].get("annotations") or {}
    return is_made_by(raw, owner) or annotations.get(names.ANNOTATION_RESOURCE) == key.name


def is_made_by(raw: Mapping[str, Any], owner: tuple[Key, str]) -> bool:
    """Return whether this very resource has made the Secret, or taken it over since."""
    (_, uid) = owner
    return (raw["metadata"].get("annotations") or {}).get(names.ANNOTATION_UID) == uid


def incarnation_of(raw: Mapping[str, Any]) -> str | None:
    """Return the incarnation that is pinned on a Secret."""
    value = (raw["metadata"].get("annotations") or {}).get(names.ANNOTATION_INCARNATION)
    return str(value) if value else None


def rotation_of(raw: Mapping[str, Any]) -> str | None:
    """Return the word on which the password in a Secret was made."""
    value = (raw["metadata"].get("annotations") or {}).get(names.ANNOTATION_ROTATED)
    return str(value) if value else None


async def _renewed(kube: Kube, owner: tuple[Key, str], wanted: Mapping[str, Any]) -> bool:
    """Return whether the Secret that is there is as wanted now; False when it went or changed meanwhile."""
    (key, _) = owner
    name = wanted["metadata"]["name"]
    try:
        found = await kube.get(SECRETS, key.namespace, name)
        if not is_ours(found, owner):
            raise NotOwned(
                f'The Secret "{name}" exists and is not this resource\'s: delete it, or name another one in '
                "`connectionSecret.name`."
            )
        await kube.send(_rewrite(found, wanted))
    except (client.NotFoundError, client.ConflictError):
        return False
    return True


def _rewrite(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Call:
    # A merge, not an apply: the keys that the Secret was created with would stay for ever, as an apply only removes
    # what an apply has brought.
    stale = dict.fromkeys(set(found.get("data") or ()) - set(wanted["data"]))
    annotations = {names.ANNOTATION_INCARNATION: None, **wanted["metadata"]["annotations"]}
    return _merge(found, annotations, {**stale, **wanted["data"]})


def _merge(found: Mapping[str, Any], annotations: Mapping[str, str | None], data: Mapping[str, str | None]) -> Call:
    # The resourceVersion makes sure that it is still the Secret whose uid was read.
    metadata = {"resourceVersion": found["metadata"]["resourceVersion"], "annotations": annotations}
    return Call(
        verb="patch",
        kind=SECRETS,
        namespace=found["metadata"]["namespace"],
        name=found["metadata"]["name"],
        query={"fieldManager": names.FIELD_MANAGER},
        body={"metadata": metadata, "data": data},
        content_type=MERGE,
    )


def _manifest(name: str, kind: str, owner: tuple[Key, str], data: Mapping[str, str]) -> dict[str, Any]:
    # No owner reference: with the resource its owner's access to the data would go.
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": kind,
        "metadata": {
            "name": name,
            "labels": {names.LABEL_MANAGED_BY: names.OPERATOR},
            "annotations": _annotations(owner),
        },
        "data": _encoded(data),
    }


def _annotations(owner: tuple[Key, str]) -> dict[str, str]:
    (key, uid) = owner
    return {names.ANNOTATION_UID: uid, names.ANNOTATION_RESOURCE: key.name}


def _encoded(data: Mapping[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
