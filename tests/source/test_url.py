from __future__ import annotations

import functools
import http.server
import lzma
import threading
from pathlib import Path

import fsspec
import pytest
from containers import STREAM

from vmstate_tools.errors import StreamError
from vmstate_tools.source import open_source, zstd


def test_urls(plain: Path, tmp_path: Path) -> None:
    with fsspec.open("memory://streams/a.mig.xz", "wb") as file:
        file.write(lzma.compress(STREAM))
    with open_source("memory://streams/a.mig.xz") as source:
        assert (source.view, source.container) == (STREAM, "xz")
    (tmp_path / "b.zst").write_bytes(zstd.compress(STREAM))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, container in (("stream.mig", "raw"), ("b.zst", "zstd")):
            with open_source(f"http://127.0.0.1:{server.server_port}/{name}") as source:
                assert (source.view, source.container) == (STREAM, container)
        with pytest.raises(FileNotFoundError, match="404"):
            open_source(f"http://127.0.0.1:{server.server_port}/none")
        server.shutdown()
    with pytest.raises(StreamError, match="cannot be read"):
        open_source("no-such-protocol://x")
