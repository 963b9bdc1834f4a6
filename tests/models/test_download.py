"""The real download path of pre-trained weights, against a local server."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from torchvision.models import MobileNet_V3_Small_Weights

from coreml_prune_bench.core.errors import WeightsError
from coreml_prune_bench.models import download_limits
from coreml_prune_bench.models import weights as weights_module
from coreml_prune_bench.models.download_limits import bytes_of, limit_s, limited
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.weights import load_pretrained, untrained_model


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def serve(server, tmp_path, monkeypatch):
    """Serves a state dict as MobileNetV3-small's weights, under a name with this hash or the right one."""
    folder, address = server
    network = get_network("mobilenet_v3_small")

    def publish(name_hash: str | None = None) -> dict[str, torch.Tensor]:
        state = untrained_model(network, 1000, seed=3).state_dict()
        torch.save(state, folder / "file")
        digest = name_hash or hashlib.sha256((folder / "file").read_bytes()).hexdigest()[:8]
        (folder / "file").rename(folder / f"mobilenet_v3_small-{digest}.pth")

        class Served:
            url = f"{address}/mobilenet_v3_small-{digest}.pth"
            get_state_dict = MobileNet_V3_Small_Weights.IMAGENET1K_V1.get_state_dict.__func__

        monkeypatch.setattr(weights_module, "get_weight", lambda name: Served())
        return state

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    return publish


def test_weights_are_downloaded_once_and_checked(serve, server):
    state = serve()
    network = get_network("mobilenet_v3_small")
    assert torch.equal(load_pretrained(network, None)["classifier.3.weight"], state["classifier.3.weight"])
    for file in server[0].iterdir():
        file.unlink()  # the second time comes from the cache
    assert torch.equal(load_pretrained(network, None)["classifier.3.weight"], state["classifier.3.weight"])


def test_a_download_with_another_hash_is_refused(serve):
    serve(name_hash="00000000")
    with pytest.raises(WeightsError, match="invalid hash value"):
        load_pretrained(get_network("mobilenet_v3_small"), None)


def test_without_the_file_the_error_names_the_address_and_the_way_out(serve, server):
    serve()
    for file in server[0].iterdir():
        file.unlink()
    with pytest.raises(WeightsError, match=r"cannot download http.*mobilenet_v3_small.pth with --weights"):
        load_pretrained(get_network("mobilenet_v3_small"), None)


def test_a_download_that_trickles_is_given_up_after_a_time_that_its_size_allows(serve, server, monkeypatch):
    serve()
    stop = threading.Event()
    monkeypatch.setattr(SimpleHTTPRequestHandler, "copyfile", lambda self, source, output: stop.wait(60))
    monkeypatch.setattr(download_limits, "PATIENCE_S", 0.2)
    monkeypatch.setattr(download_limits, "_USUAL_BYTES", 0)
    with pytest.raises(WeightsError, match=r"cannot download http.*not finished after 0 s.*pth with --weights"):
        load_pretrained(get_network("mobilenet_v3_small"), None)
    stop.set()


def test_a_limit_grows_with_the_size_and_what_is_raised_is_raised():
    assert limit_s(5_000_000) - limit_s(0) == 100
    assert bytes_of(MobileNet_V3_Small_Weights.IMAGENET1K_V1) == 9_829_000
    assert limited(lambda: 7) == 7
    with pytest.raises(KeyError):
        limited({}.popitem)
