"""``vk.explain`` of models, the report of a handle, and what ``verify`` measures."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import vaekernels as vk
from tests.integrations.accelerate.models import images, own_model


def test_layers_that_stay_are_listed_with_the_reason() -> None:
    model = nn.Sequential(
        nn.Conv2d(16, 16, 3, padding=1, groups=2),
        nn.Conv2d(16, 16, 3, padding=2, dilation=2),
        nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(16, 16, 5, padding=2),
        nn.Conv2d(16, 16, 3, stride=2),
        nn.ConvTranspose2d(16, 16, 3, stride=2),
        nn.Linear(4, 4),
        vk.nn.DownsampleConv4x4(16, 16),
        nn.GroupNorm(4, 16),
        nn.SiLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.LeakyReLU(0.1),
    )
    report = vk.explain(model)
    reasons = {layer.path: layer.reason for layer in report.stays}
    assert reasons["0"] == "groups must be 1; got 2"
    assert reasons["1"] == "dilation must be (1, 1); got (2, 2)"
    assert reasons["2"] == "padding_mode must be 'zeros'; got 'reflect'"
    assert reasons["3"].endswith("got 5x5, stride (1, 1), padding (2, 2)")
    assert reasons["4"].endswith("fits only behind a padding of (0, 1, 0, 1)")
    assert reasons["5"].startswith("transposed convolutions must be 4x4 with stride 2")
    assert reasons["6"] == "no op for Linear"
    assert [layer.path for layer in report.accelerated] == ["7", "8", "10"]
    lines = str(report).splitlines()
    assert lines[0] == "Sequential: 3 of 10 layers run on ops"
    assert "  0   not replaced: groups must be 1; got 2" in lines
    assert "  7   downsample_conv4x4" in lines
    assert "  10  conv3x3 (8 + 9 + 10 + 11)" in lines
    assert lines[-1] == "  vk.explain(model, example) shows how each convolution is computed"
    assert len(str(vk.explain(nn.Linear(2, 2))).splitlines()) == 2
    assert not any(hasattr(type(m), "_vaekernels_original") for m in model.modules())
    with vk.accelerate(model) as handle:
        assert handle.report == report == vk.explain(model)
        assert repr(handle) == "<Handle of Sequential: 3 of 10 layers run on ops>"


class Outputs(NamedTuple):
    image: Tensor
    rest: dict[str, list[Tensor]]


class Many(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, scale: float = 1.0) -> Outputs:
        y = self.norm(self.conv(self.drop(x))) * scale + torch.randn(x.shape)
        return Outputs(y, {"codes": [y.argmax(dim=1)], "none": [y[:0]]})


def test_verify_names_each_output_and_leaves_no_trace() -> None:
    torch.manual_seed(0)
    model = Many()
    x = torch.randn(2, 16, 9, 9)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    noise = torch.get_rng_state()
    for example in (x, (x, 2.0), {"x": x, "scale": 2.0}):
        with vk.accelerate(model, verify=example) as handle:
            image, codes, none = handle.differences
        assert (image.output, codes.output, none.output) == ("image", "rest.codes.0", "rest.none.0")
        assert 0 <= image.mean <= image.max <= 2e-5
        assert codes.mean <= codes.max <= 1.0
        assert none.max == 0.0
        assert f"image: relative error {image.max:.1e} at most" in repr(handle)
    assert model.training
    assert model.norm.training
    assert torch.equal(torch.get_rng_state(), noise)
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key])
    assert vk.accelerate(own_model("ConvVAE")).differences == ()


def test_a_wrong_argument_is_named() -> None:
    model = own_model("ConvVAE")
    with pytest.raises(TypeError, match=r"accelerate: model must be a torch.nn.Module; got str"):
        vk.accelerate("model")
    with pytest.raises(ValueError, match="accelerate: precision must be 'medium', 'high' or"):
        vk.accelerate(model, precision="low")
    with pytest.raises(TypeError, match="accelerate: verify must be a tensor, a tuple .*; got int"):
        vk.accelerate(model, verify=3)
    with pytest.raises(RuntimeError, match="channels"):
        vk.accelerate(model, verify=images(own_model("ResBlock")))
    assert not any(hasattr(type(m), "_vaekernels_original") for m in model.modules())


@pytest.mark.parametrize("compiler", ["trace", "script"])
@pytest.mark.parametrize("place", ["model", "sequential", "attribute"])
@torch.no_grad()
def test_what_torchscript_runs_stays(compiler: str, place: str) -> None:
    class Around(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.conv = inner, nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.inner(x))

    x = torch.randn(1, 4, 8, 8)
    layers = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
    compiled = torch.jit.trace(layers, x) if compiler == "trace" else torch.jit.script(layers)
    model = {
        "model": lambda: compiled,
        "sequential": lambda: nn.Sequential(compiled, nn.Conv2d(4, 4, 3, padding=1)),
        "attribute": lambda: Around(compiled),
    }[place]()
    expected = model(x)
    with vk.accelerate(model) as handle:
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
        assert [layer.op for layer in handle.report.layers] == [None] + ["conv3x3"] * (
            place != "model"
        )
        assert handle.report.stays[0].reason.startswith("no op for ")
    assert torch.equal(model(x), expected)
