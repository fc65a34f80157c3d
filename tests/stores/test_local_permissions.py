"""The embedded store: who may read it, and what readers see who may not write it."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from late_interaction import LocalStore
from late_interaction.errors import StoreError
from tests.stores.local import SMALL, SPEC, encoded
from tests.support.paths import ROOT

NOBODY = 65534
FILE = "documents.sqlite3"

as_another_user = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user"
)


@pytest.fixture
def folder():
    """A folder that other users can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        folder = Path(parent) / "db"
        folder.mkdir()
        folder.chmod(0o755)
        yield folder


READER = """
    import asyncio, os, sys
    sys.path.insert(0, {root!r})
    from late_interaction import LocalStore, StoreError
    from tests.stores.local import SPEC, best, encoded, query
    os.setgid({nobody}); os.setuid({nobody})
    store = LocalStore({folder!r}, "things")

    async def look():
        try:
            await store.open(SPEC)
            ids = {{document.doc_id for document in await store.find()}}
            assert set(await best(store, query(1), 1000)) == ids
            assert await store.count() == len(ids)
            found, _ = await store.score(query(1), sorted(ids))
            assert found == sorted(ids)
            return str(len(ids))
        except StoreError as error:
            return "StoreError: " + str(error)

    async def once():
        try:
            await store.open(SPEC)
            documents = await store.find()
            assert [d.metadata["i"] for d in documents] == list(range(len(documents)))
            return str(len(documents))
        except StoreError as error:
            return "StoreError: " + str(error)

    async def write():
        try:
            await store.open(SPEC)
            await store.upsert([encoded(5000)])
        except StoreError as error:
            return "StoreError: " + str(error)

    for line in sys.stdin:
        print(asyncio.run(dict(look=look, once=once, write=write)[line.strip()]()), flush=True)
"""


class Reader:
    """A process of a user who may read and not write; it keeps its store open between questions."""

    def __init__(self, folder: Path) -> None:
        code = textwrap.dedent(READER).format(root=str(ROOT), nobody=NOBODY, folder=str(folder))
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()

    def ask(self, what: str = "look") -> str:
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


async def opened(folder: Path) -> LocalStore:
    store = LocalStore(folder, "things", shared=True)
    await store.open(SPEC)
    return store


@pytest.mark.slow
@as_another_user
async def test_a_reader_without_write_permission_sees_every_acknowledged_document(folder):
    """While the writer lives, once it closed, and when the next one comes; with one reader that stays and new ones."""
    store = await opened(folder)
    await store.upsert([encoded(i) for i in range(50)])
    with Reader(folder) as reader:
        for writer in range(3):
            for i in range(3):
                count = 50 + 10 * (3 * writer + i)
                if i or writer:
                    await store.upsert([encoded(j) for j in range(count - 10, count)])
                assert await asyncio.to_thread(reader.ask) == str(count)
            await store.close()
            assert await asyncio.to_thread(reader.ask) == str(count)
            with Reader(folder) as fresh:
                assert await asyncio.to_thread(fresh.ask) == str(count)
            store = await opened(folder)
            assert await asyncio.to_thread(reader.ask) == str(count)
        assert "StoreError: The index in" in await asyncio.to_thread(reader.ask, "write")
        assert await asyncio.to_thread(reader.ask) == str(count)
    await store.close()


@pytest.mark.slow
@as_another_user
async def test_a_reader_sees_what_a_killed_writer_left(folder):
    code = f"""
        import asyncio, os, sys
        sys.path.insert(0, {str(ROOT)!r})
        from late_interaction import LocalStore
        from tests.stores.local import SPEC, encoded

        async def main():
            store = LocalStore({str(folder)!r}, "things", shared=True)
            await store.open(SPEC)
            await store.upsert([encoded(i) for i in range(80)])
            os.kill(os.getpid(), 9)

        asyncio.run(main())
    """
    killed = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", textwrap.dedent(code)])
    assert killed.returncode == -9
    assert (folder / "things" / f"{FILE}-wal").stat().st_size > 0
    with Reader(folder) as reader:
        assert await asyncio.to_thread(reader.ask) == "80"
        store = await opened(folder)
        await store.upsert([encoded(80)])
        assert await asyncio.to_thread(reader.ask) == "81"
        await store.close()
        assert await asyncio.to_thread(reader.ask) == "81"


@as_another_user
async def test_a_log_that_cannot_be_read_without_write_permission_is_told(folder):
    """A copy without the -shm file, which only a user who may write can make again."""
    store = await opened(folder)
    await store.upsert([encoded(i) for i in range(10)])
    shutil.copytree(folder, folder.with_name("copy"))
    await store.close()
    (folder.with_name("copy") / "things" / f"{FILE}-shm").unlink()
    with Reader(folder.with_name("copy")) as reader:
        assert "cannot be read without permission to write" in await asyncio.to_thread(reader.ask)


@pytest.mark.slow
@as_another_user
async def test_a_reader_beside_a_busy_writer_gets_whole_answers(folder):
    """Each answer is one state: neither a torn one nor an older one than was acknowledged before the question."""
    store = await opened(folder)
    await store.upsert([encoded(0)])
    with Reader(folder) as reader:
        assert await asyncio.to_thread(reader.ask) == "1"
        acknowledged, over = 1, False

        async def write() -> None:
            nonlocal acknowledged, store
            while not over:
                await store.upsert([encoded(j) for j in range(acknowledged, acknowledged + 5)])
                acknowledged += 5
                if acknowledged % 20 == 1:  # the last writer closes, and the log goes
                    await store.close()
                    store = await opened(folder)

        writing = asyncio.create_task(write())
        try:
            for _ in range(40):
                before = acknowledged
                answer = await asyncio.to_thread(reader.ask, "once")
                assert answer.isdigit(), answer
                assert before <= int(answer) <= acknowledged + 5
        finally:
            over = True
            await writing
    await store.close()


@pytest.mark.slow
@as_another_user
@pytest.mark.parametrize("private", [FILE, f"{FILE}-wal"])
async def test_a_file_that_may_not_be_read_is_named(folder, private):
    store = await opened(folder)
    await store.upsert([encoded(i) for i in range(10)])
    (folder / "things" / private).chmod(0o600)
    with Reader(folder) as reader:
        assert f"no permission to read {private}." in await asyncio.to_thread(reader.ask)
    await store.close()


@pytest.mark.slow
@as_another_user
async def test_a_private_index_is_told_to_other_users_as_what_it_is(folder):
    store = LocalStore(folder, "things")
    await store.open(SPEC)
    await store.upsert([encoded(1)])
    await store.close()
    with Reader(folder) as reader:
        assert "Permission denied" in await asyncio.to_thread(reader.ask)


@as_another_user
@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
async def test_a_read_only_mount(folder):
    store = await opened(folder)
    await store.upsert([encoded(i) for i in range(10)])
    mounted = folder.with_name("mounted")
    mounted.mkdir()
    if not mount("mount", "--bind", folder, mounted):
        pytest.skip("this container may not mount")
    try:
        assert mount("mount", "-o", "remount,bind,ro", mounted)
        reader = LocalStore(mounted, "things")
        await reader.open(SPEC)
        assert await reader.count() == 10
        await store.upsert([encoded(10)])
        assert await reader.count() == 11
        await store.close()
        assert await reader.count() == 11
        with pytest.raises(StoreError, match="cannot be written"):
            await reader.upsert([encoded(11)])
        with pytest.raises(StoreError, match="cannot be written"):
            await LocalStore(mounted, "another").open(SPEC)
        await reader.close()
    finally:
        assert mount("umount", "-l", mounted)


def mount(*command: object) -> bool:
    return subprocess.run([str(word) for word in command], check=False, capture_output=True).returncode == 0


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.iterdir()]}


@pytest.mark.parametrize(
    ("umask", "shared", "files", "folders"),
    [
        (0o022, False, 0o600, 0o700),
        (0o000, False, 0o600, 0o700),
        (0o022, True, 0o644, 0o755),
        (0o002, True, 0o664, 0o775),
    ],
)
async def test_a_new_index_is_for_its_user_alone_unless_it_is_shared(tmp_path, umask, shared, files, folders):
    before = os.umask(umask)
    try:
        store = LocalStore(tmp_path / "db", "things", shared=shared, limits=SMALL)
        await store.open(SPEC)
        await store.upsert([encoded(i) for i in range(200)])
        await store.optimize()
        found = modes(store.folder)
        await store.close()
    finally:
        os.umask(before)
    assert {FILE, f"{FILE}-wal", f"{FILE}-shm", "centroids.npz", "write.lock"} <= set(found)
    assert found.pop("things") == folders
    assert set(found.values()) == {files}


async def test_an_existing_index_keeps_its_permissions(tmp_path):
    store = LocalStore(tmp_path, "things", shared=True)
    await store.open(SPEC)
    await store.close()
    for path in store.folder.iterdir():
        path.chmod(0o640)
    store = LocalStore(tmp_path, "things")
    await store.open(SPEC)
    await store.upsert([encoded(1)])
    found = modes(store.folder)
    await store.close()
    found.pop("things")
    assert set(found.values()) == {0o640}
