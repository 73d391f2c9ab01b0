"""What every ObjectStore promises."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from crc32c import crc32c

from shared.errors import ObjectExistsError, ObjectMissingError
from shared.ports import ObjectStore


def store_object(objects: ObjectStore, name: str, data: bytes) -> None:
    with objects.create(name) as writer:
        writer.write(data)
        writer.commit()


def contents(objects: ObjectStore, name: str) -> bytes:
    with objects.open(name) as reader:
        return b"".join(reader.stream())


class TestObjectStore:
    """A new adapter is one more param of the `objects` fixture."""

    def test_keeps_every_byte_in_the_order_written(self, objects: ObjectStore) -> None:
        with objects.create("received/20261121/10/a.dcm") as writer:
            writer.write(b"one", bytearray(b"two"), memoryview(b"-three-")[1:-1])
            writer.write()
            writer.write(b"", memoryview(bytearray(b"four")))
            stored = writer.commit()
        assert contents(objects, stored.name) == b"onetwothreefour"
        assert stored.size == 15

    def test_takes_more_buffers_than_one_system_call_does(self, objects: ObjectStore) -> None:
        with objects.create("many") as writer:
            writer.write(*[bytes([number % 256]) * 3 for number in range(3000)])
            writer.commit()
        assert contents(objects, "many") == b"".join(bytes([n % 256]) * 3 for n in range(3000))

    def test_buffers_may_be_reused_once_write_returns(self, objects: ObjectStore) -> None:
        buffer = bytearray(b"first")
        with objects.create("reused") as writer:
            writer.write(buffer)
            buffer[:] = b"again"
            buffer.extend(b" and longer")
            writer.write(memoryview(buffer)[:5])
            writer.commit()
        assert contents(objects, "reused") == b"firstagain"

    def test_tells_size_and_crc32c_while_and_after_writing(self, objects: ObjectStore) -> None:
        data = os.urandom(3 * 1024 * 1024 + 7)
        expected = crc32c(data)
        with objects.create("summed") as writer:
            writer.write(data[:100], memoryview(bytearray(data[100:])))
            assert (writer.size, writer.crc32c) == (len(data), expected)
            assert writer.commit().crc32c == expected
        stored = objects.stat("summed")
        assert (stored.name, stored.size, stored.crc32c) == ("summed", len(data), expected)

    def test_an_object_is_invisible_until_commit(self, objects: ObjectStore) -> None:
        with objects.create("later") as writer:
            writer.write(b"bytes")
            assert list(objects.list()) == []
            with pytest.raises(ObjectMissingError):
                objects.open("later")
            writer.commit()
        assert list(objects.list()) == ["later"]

    def test_leaving_the_block_without_commit_leaves_nothing(self, objects: ObjectStore) -> None:
        with objects.create("gone") as writer:
            writer.write(b"bytes")
        writer.discard()
        assert list(objects.list()) == []

    def test_discard_after_commit_changes_nothing(self, objects: ObjectStore) -> None:
        with objects.create("kept") as writer:
            writer.write(b"bytes")
            writer.commit()
            writer.discard()
        assert contents(objects, "kept") == b"bytes"

    def test_keeps_the_first_object_when_another_comes(self, objects: ObjectStore) -> None:
        """A forged or re-sent Instance must not replace one that is already routed."""
        store_object(objects, "a/b", b"first")
        with objects.create("a/b") as writer:
            writer.write(b"second")
            with pytest.raises(ObjectExistsError):
                writer.commit()
        assert contents(objects, "a/b") == b"first"

    def test_one_of_twenty_that_commit_at_once_wins(self, objects: ObjectStore) -> None:
        barrier = Barrier(20)

        def attempt(number: int) -> bool:
            with objects.create("raced/for") as writer:
                writer.write(b"%d" % number)
                barrier.wait()
                try:
                    writer.commit()
                except ObjectExistsError:
                    return False
            return True

        with ThreadPoolExecutor(20) as pool:
            won = list(pool.map(attempt, range(20)))
        assert won.count(True) == 1
        assert contents(objects, "raced/for") == b"%d" % won.index(True)

    def test_reads_any_range(self, objects: ObjectStore) -> None:
        store_object(objects, "ranges", b"0123456789")
        with objects.open("ranges") as reader:
            assert (reader.name, reader.size) == ("ranges", 10)
            assert reader.read_at(0, 4) == b"0123"
            assert reader.read_at(8, 4) == b"89"
            assert reader.read_at(10, 1) == b""
            assert reader.read_at(11, 1) == b""
            assert b"".join(reader.stream(3, 4)) == b"3456"
            assert b"".join(reader.stream(7)) == b"789"
            assert b"".join(reader.stream(12)) == b""

    def test_streams_in_pieces_of_a_mebibyte(self, objects: ObjectStore) -> None:
        data = os.urandom(2 * 1024 * 1024 + 1)
        store_object(objects, "large", data)
        with objects.open("large") as reader:
            pieces = list(reader.stream())
        assert max(map(len, pieces)) <= 1024 * 1024
        assert b"".join(pieces) == data

    def test_a_descriptor_reads_at_absolute_offsets(self, objects: ObjectStore) -> None:
        store_object(objects, "sent", b"0123456789")
        with objects.open("sent") as reader:
            fd = reader.fileno()
            if fd is not None:
                assert os.pread(fd, 3, 5) == b"567"

    def test_an_open_object_outlives_its_deletion(self, objects: ObjectStore) -> None:
        """A delivery that runs must not be hurt by a clean-up."""
        store_object(objects, "doomed", b"still here")
        with objects.open("doomed") as reader:
            objects.delete("doomed")
            assert reader.read_at(0, 100) == b"still here"
        with pytest.raises(ObjectMissingError):
            objects.stat("doomed")

    def test_deleting_what_is_missing_is_no_error(self, objects: ObjectStore) -> None:
        objects.delete("never/was")

    def test_a_deleted_name_can_be_used_again(self, objects: ObjectStore) -> None:
        store_object(objects, "again", b"one")
        objects.delete("again")
        store_object(objects, "again", b"two")
        assert contents(objects, "again") == b"two"

    @pytest.mark.parametrize("name", ["missing", "a/missing", "a", "a/b/below-an-object"])
    def test_a_missing_object_is_told(self, objects: ObjectStore, name: str) -> None:
        store_object(objects, "a/b", b"")
        with pytest.raises(ObjectMissingError):
            objects.open(name)
        with pytest.raises(ObjectMissingError):
            objects.stat(name)

    def test_lists_by_prefix_in_ascending_order(self, objects: ObjectStore) -> None:
        """`-` and `.` sort before `/`, so `a-b` stands before what is in `a/`."""
        names = ["b", "a/z", "a/b/c", "a-b", "a.b", "a0", "ab/c", "a/b.c", "a/b0"]
        for name in names:
            store_object(objects, name, b"")
        for prefix in ("", "a", "a/", "a/b", "a/b/", "ab", "b", "a-", "c", "c/d", "a/z"):
            expected = sorted(name for name in names if name.startswith(prefix))
            assert list(objects.list(prefix)) == expected, prefix

    @pytest.mark.parametrize(
        "name",
        ["", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/.", "a b", "a\n", "ä", "a\\b",
         "~unfinished", "a\0b", "*", "x" * 2000],
    )  # fmt: skip
    def test_refuses_names_that_could_lead_elsewhere(self, objects: ObjectStore, name: str) -> None:
        for use in (objects.create, objects.open, objects.stat, objects.delete):
            with pytest.raises(ValueError):
                use(name)

    @pytest.mark.parametrize("name", ["...", ".a", "a.b/..c", "-", "_", "a/b/c/d/e.f-g_h"])
    def test_takes_every_other_name(self, objects: ObjectStore, name: str) -> None:
        store_object(objects, name, b"x")
        assert list(objects.list()) == [name]

    def test_tells_what_still_fits(self, objects: ObjectStore) -> None:
        free = objects.free_bytes()
        assert free is None or free > 0
