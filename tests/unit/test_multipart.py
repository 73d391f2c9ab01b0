"""Multipart bodies from the wire: read right however they arrive, refused when they are not."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.multipart import (
    IncompleteBodyError,
    MultipartError,
    MultipartReader,
    TooManyPartsError,
)
from shared.web.media_types import MediaType

Parts = list[tuple[dict[str, str], bytes]]


def read(
    body: bytes, boundary: str = "B", *, at_once: int = 1 << 20, max_parts: int = 100
) -> Parts:
    """All parts of a body that arrives `at_once` bytes at a time."""
    stream = BytesIO(body)
    reader = MultipartReader(
        lambda size: stream.read(min(size, at_once)), boundary, max_parts=max_parts
    )
    return [(dict(part.headers), b"".join(map(bytes, part.chunks()))) for part in reader]


def outcome(body: bytes, at_once: int) -> Parts | str:
    try:
        return read(body, at_once=at_once)
    except MultipartError as error:
        return type(error).__name__


class TestMultipartReader:
    def test_gives_each_part_with_its_header(self) -> None:
        body = (
            b"--B\r\nContent-Type: application/dicom\r\nX: 1\r\n\r\none\r\n--B\r\n\r\ntwo\r\n--B--"
        )
        assert read(body) == [
            ({"content-type": "application/dicom", "x": "1"}, b"one"),
            ({}, b"two"),
        ]

    def test_ignores_preamble_epilogue_and_padding(self) -> None:
        preamble, epilogue = b"This is a --B message\r\n", b"\r\n--B\r\n\r\nno part\r\n--B--"
        assert read(preamble + b"--B \t\r\n\r\none\r\n--B-- " + epilogue) == [({}, b"one")]

    def test_reads_lines_that_end_in_lf_alone(self) -> None:
        assert read(b"--B\nA: b\n\none\r\n--B\n\ntwo\n--B--\n") == [
            ({"a": "b"}, b"one\r"),
            ({}, b"two"),
        ]

    def test_keeps_an_lf_boundary_as_content_where_lines_end_in_crlf(self) -> None:
        """Pixel data may hold these bytes; the first boundary line says how lines end."""
        assert read(b"--B\r\n\r\none\n--B\ntwo\r\n--B--") == [({}, b"one\n--B\ntwo")]

    def test_keeps_a_line_that_merely_starts_like_the_boundary(self) -> None:
        assert read(b"--B\r\n\r\n\r\n--BB\r\n--B-\r\n--B--x\r\n--B--") == [
            ({}, b"\r\n--BB\r\n--B-\r\n--B--x")
        ]

    def test_takes_a_part_without_content_with_and_without_its_own_line_end(self) -> None:
        assert read(b"--B\r\n\r\n\r\n--B\r\nA: b\r\n\r\n--B--") == [({}, b""), ({"a": "b"}, b"")]

    def test_unfolds_header_lines(self) -> None:
        body = b"--B\r\nContent-Type: application/dicom;\r\n transfer-syntax=1.2\r\n\r\n\r\n--B--"
        assert read(body) == [({"content-type": "application/dicom; transfer-syntax=1.2"}, b"")]

    @pytest.mark.parametrize(
        "body",
        [
            b"--B\r\n\r\none",
            b"--B\r\n\r\none\r\n--B\r\n",
            b"--B\r\nA: b",
            b"--B\r\n\r\none\r\n--B-",
        ],
    )
    def test_says_that_a_body_breaks_off(self, body: bytes) -> None:
        """Else half an Instance would be taken for a whole one."""
        with pytest.raises(IncompleteBodyError):
            read(body)

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"one",
            b"--B--\r\n",
            b"--B\r\nno field\r\n\r\n\r\n--B--",
            b"--B\r\nA b: c\r\n\r\n\r\n--B--",
            b"--B\r\n folded\r\n\r\n\r\n--B--",
        ],
    )
    def test_refuses_what_is_no_multipart_body(self, body: bytes) -> None:
        with pytest.raises(MultipartError):
            read(body)

    @pytest.mark.parametrize("start", [b"", b"--B\r\nA: ", b"--B\r\n", b"--B\r\nA: b\r\n"])
    def test_gives_up_early_on_an_endless_header(self, start: bytes) -> None:
        """Nothing may grow with what a stranger sends before it is known to be an Instance."""
        given_bytes = 0

        def endless(size: int) -> bytes:
            nonlocal given_bytes
            data = (b"" if given_bytes else start) + b"a" * min(size, 4096)
            given_bytes += len(data)
            return data

        with pytest.raises(MultipartError):
            list(MultipartReader(endless, "B", max_parts=10))
        assert given_bytes < 200_000

    def test_gives_up_on_a_header_of_endlessly_many_lines(self) -> None:
        with pytest.raises(MultipartError):
            read(b"--B\r\n" + b"A: b\r\n" * 100_000 + b"\r\n\r\n--B--", at_once=1000)

    def test_gives_up_on_too_many_parts(self) -> None:
        with pytest.raises(TooManyPartsError):
            read(b"--B\r\n\r\n" * 11 + b"--B--", max_parts=10)

    @pytest.mark.parametrize("boundary", ["", "a" * 201, "a\r\nb", "a\x00b", "ä", "a "])
    def test_refuses_a_boundary_that_cannot_be_one(self, boundary: str) -> None:
        with pytest.raises(MultipartError):
            read(b"", boundary)

    def test_skips_what_a_caller_leaves_of_a_part(self) -> None:
        stream = BytesIO(b"--B\r\n\r\n" + bytes(1_000_000) + b"\r\n--B\r\n\r\ntwo\r\n--B--")
        reader = MultipartReader(stream.read, "B", max_parts=10)
        assert [len(next(part.chunks())) for part in reader][1] == 3

    def test_hands_a_large_part_over_in_small_pieces(self) -> None:
        stream = BytesIO(b"--B\r\n\r\n" + bytes(5_000_000) + b"\r\n--B--")
        reader = MultipartReader(stream.read, "B", max_parts=10)
        assert max(len(piece) for part in reader for piece in part.chunks()) < 600_000

    @given(
        contents=st.lists(
            st.lists(
                st.sampled_from([b"\r\n", b"\n", b"\r", b"--B", b"--B--", b"-", b"B", b" ", b"x"])
                | st.binary(max_size=20),
                max_size=12,
            ).map(b"".join),
            min_size=1,
            max_size=5,
        ),
        at_once=st.integers(1, 40),
    )
    def test_gives_back_what_was_sent(self, contents: list[bytes], at_once: int) -> None:
        """Whatever the content looks like, as long as no line of it is the boundary line."""
        boundary = "the-boundary"
        body = b"".join(b"--the-boundary\r\n\r\n" + content + b"\r\n" for content in contents)
        found = read(body + b"--the-boundary--", boundary, at_once=at_once)
        assert [content for _, content in found] == contents

    @given(
        body=st.lists(
            st.sampled_from(
                [
                    b"\r\n",
                    b"\n",
                    b"\r",
                    b"--B",
                    b"--B\r\n",
                    b"--B--",
                    b"A: b\r\n",
                    b"\r\n\r\n",
                    b" ",
                ]
            )
            | st.binary(max_size=8),
            max_size=20,
        ).map(b"".join),
        at_once=st.integers(1, 20),
    )
    def test_reads_any_bytes_alike_however_they_arrive(self, body: bytes, at_once: int) -> None:
        """Packets end anywhere, so where they end must not matter; and nothing crashes."""
        assert outcome(body, at_once) == outcome(body, 1 << 20)


class TestMediaType:
    @pytest.mark.parametrize(
        "text",
        [
            'multipart/related; type="application/dicom"; boundary="a=b/c;d"',
            'Multipart/Related;BOUNDARY="a=b/c;d" ; type=application/dicom',
            'multipart/related;; type = application/dicom ; boundary="a=b/c\\;d"',
        ],
    )
    def test_reads_parameters_quoted_or_not(self, text: str) -> None:
        parsed = MediaType.parse(text)
        assert parsed.name == "multipart/related"
        assert parsed.parameters == {"type": "application/dicom", "boundary": "a=b/c;d"}

    def test_takes_an_unquoted_boundary_with_special_characters(self) -> None:
        """javax.mail writes `boundary=----=_Part_0_1.2` and many senders are made of it."""
        parsed = MediaType.parse("multipart/related; boundary=----=_Part_0_1.2; type=x")
        assert parsed.parameters["boundary"] == "----=_Part_0_1.2"

    @given(st.text(max_size=60))
    def test_reads_any_text(self, text: str) -> None:
        MediaType.parse(text)
        MediaType.parse("a/b; " + text)
