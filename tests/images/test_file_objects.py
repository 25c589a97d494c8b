from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

from captioner.images import open_image
from tests.images.pictures import BLUE, GREEN, GREY, RED, assert_colours, encoded, failure, four_colours


def test_a_file_object_is_read_from_its_start_left_where_it_was_and_not_closed() -> None:
    file = io.BytesIO(encoded(four_colours(), "PNG"))
    file.seek(10)
    assert open_image(file).size == (64, 32)
    assert file.tell() == 10
    bad = io.BytesIO(b"words")
    bad.seek(2)
    failure(bad)
    assert (bad.tell(), bad.closed) == (2, False)


def test_a_stream_that_cannot_seek_and_gives_a_few_bytes_at_a_time_is_read_to_its_end() -> None:
    reader, writer = os.pipe()
    data = encoded(four_colours(), "PNG")
    thread = threading.Thread(target=lambda: [os.write(writer, data[i : i + 7]) for i in range(0, len(data), 7)])
    thread.start()
    thread.join()
    os.close(writer)
    with open(reader, "rb", buffering=0) as stream:  # noqa: PTH123  # A file descriptor has no path.
        assert open_image(stream).size == (64, 32)
        assert not stream.closed


def test_an_object_with_nothing_but_read_will_do() -> None:
    class Reader:
        def __init__(self, data: bytes) -> None:
            self.read = io.BytesIO(data).read

    assert open_image(Reader(encoded(four_colours(), "PNG"))).size == (64, 32)


def test_text_files_and_closed_files_are_refused() -> None:
    assert "binary mode" in failure(io.StringIO("text"))
    closed = io.BytesIO(b"x")
    closed.close()
    assert "closed" in failure(closed)


def test_no_file_is_left_open(tmp_path: Path) -> None:
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        data = encoded(four_colours(), kind)
        (tmp_path / f"{kind}.img").write_bytes(data)
        (tmp_path / f"{kind}.bad").write_bytes(data[: len(data) // 2])
    script = (
        "import gc, sys; from pathlib import Path\n"
        "from captioner.images import open_image\nfrom captioner.errors import ImageError\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try: open_image(path)\n"
        "    except ImageError: pass\n"
        "gc.collect()\n"
        "assert 'torch' not in sys.modules and 'torchvision' not in sys.modules\n"
    )
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_opened_image_outlives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    path.write_bytes(encoded(four_colours(), "BMP"))
    image = open_image(path)
    path.write_bytes(b"")
    assert_colours(image, [RED, GREEN, BLUE, GREY])
