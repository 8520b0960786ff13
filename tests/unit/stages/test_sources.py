"""Sources: what the tools made of bundles is kept, as long as it is not too much."""

from database_bootstrap.bundles.bundle import Bundle, File, bundle_of
from database_bootstrap.stages.visit import Sources
from database_bootstrap.tools.sql_files import SqlFiles

MEGABYTE = 1024 * 1024


def bundle(megabytes: int, mark: str) -> Bundle:
    return bundle_of([File(path="1_a.sql", content=f"-- {mark}".encode().ljust(megabytes * MEGABYTE))])


async def test_small_ones_are_kept_and_large_ones_make_room() -> None:
    sources, tool = Sources(), SqlFiles()
    small = [await sources.load(tool, bundle(1, str(number))) for number in range(10)]
    assert [await sources.load(tool, bundle(1, str(number))) for number in range(10)] == small
    assert await sources.load(tool, bundle(1, "0")) is small[0]
    large = await sources.load(tool, bundle(60, "large"))
    assert await sources.load(tool, bundle(60, "large")) is large
    assert await sources.load(tool, bundle(1, "1")) is not small[1]
    assert await sources.load(tool, bundle(1, "0")) is small[0]
    # A second large one leaves no room for the first.
    await sources.load(tool, bundle(64, "larger"))
    assert await sources.load(tool, bundle(60, "large")) is not large


async def test_many_small_ones_are_limited_by_number() -> None:
    sources, tool = Sources(), SqlFiles()
    first = await sources.load(tool, bundle_of([File(path="1_a.sql", content=b"")]))
    for number in range(128):
        await sources.load(tool, bundle_of([File(path="1_a.sql", content=f"-- {number}".encode())]))
    assert await sources.load(tool, bundle_of([File(path="1_a.sql", content=b"")])) is not first
