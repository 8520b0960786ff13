"""What the project's code can reach: its own files, what Python and libpq need, and the server."""

import os
import ssl
import sys
from pathlib import Path

from database_bootstrap.tools.sandbox import landlock, syscalls, wire
from database_bootstrap.tools.sandbox.level import Level

_LIBRARIES = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_NETWORK = (
    *("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"),
    *("/etc/services", "/etc/protocols"),
)
_AUTHORITIES = (
    *("/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs", "/etc/pki/tls/openssl.cnf"),
    *("/etc/pki/ca-trust/extracted", "/etc/crypto-policies", "/etc/ca-certificates"),
    *("/usr/share/ca-certificates", "/usr/local/share/ca-certificates"),
)
_TIME = ("/etc/localtime", "/etc/timezone", "/usr/share/zoneinfo")
_LANGUAGES = ("/usr/share/locale", "/usr/share/i18n")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full")
_RANDOM = ("/dev/urandom", "/dev/random")


def close(target: wire.Target, scratch: Path, level: Level) -> None:
    """Leave only that in reach, for good."""
    on_network = not target.host.startswith("/")
    landlock.restrict(_reach(scratch, (target.port,) if on_network else ()), level.abi)
    if level.filters:
        syscalls.restrict(local_sockets=not on_network, truncate=level.abi >= landlock.TRUNCATES_SINCE)


def _reach(scratch: Path, ports: tuple[int, ...]) -> landlock.Reach:
    """Return it; nothing in it can be executed, and only `home` can be written to."""
    own = (str(scratch / "project"), str(scratch / "ca.pem"), f"/proc/{os.getpid()}")
    return landlock.Reach(
        read=(*own, *_interpreter(), *_LIBRARIES, *_NETWORK, *_authorities(), *_TIME, *_LANGUAGES, *_RANDOM),
        use=_DEVICES,
        keep=(str(scratch / "home"),),
        ports=ports,
    )


def _interpreter() -> tuple[str, ...]:
    """Return where modules come from; the zygote is isolated, so no path of a user's is among them."""
    homes = [f"{home}/{folder}" for home in (sys.base_prefix, sys.prefix) for folder in ("lib", "lib64")]
    return (*homes, *(path for path in sys.path if path.startswith("/")))


def _authorities() -> tuple[str, ...]:
    paths = ssl.get_default_verify_paths()
    known = (paths.cafile, paths.capath, paths.openssl_cafile, paths.openssl_capath)
    return (*_AUTHORITIES, *(path for path in known if path))
