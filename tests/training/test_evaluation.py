"""What training logs of held-out images is what the reference backend gives for the weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import vaekernels as vk
from vaekernels.models import VAE, VAEConfig
from vaekernels.training import ImageData, TrainConfig, evaluate, split, train
from vaekernels.training.loop import _Trainer

CONFIG = TrainConfig(epochs=4, batch=8, lr=1e-2, heldout=0.25, seed=5, device="cpu")
# Inner maps of 4 pixels and of one; of the latter most taps see padding alone and never move.
MODELS = {
    "plain": VAEConfig(image_shape=(1, 16, 16), latent_dim=3, hidden=(8, 16)),
    "one pixel": VAEConfig(image_shape=(1, 16, 16), latent_dim=3, hidden=(8, 16, 16, 16)),
    "silu": VAEConfig((1, 16, 16), 3, hidden=(8, 16, 16, 16), activation="silu"),
    "mlp": VAEConfig((1, 16, 16), 3, backbone="mlp", hidden=(20,)),
}


@pytest.fixture
def squares() -> ImageData:
    """40 images of 16 x 16: bright squares at random places."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 60, (40, 1, 16, 16), generator=generator).to(torch.uint8)
    for image, (top, left) in zip(
        pixels, torch.randint(0, 10, (40, 2), generator=generator).tolist(), strict=True
    ):
        image[:, top : top + 6, left : left + 6] = 255
    return ImageData(pixels, None, "squares", torch.arange(40))


def kill_units(model):
    """Every second unit of the first layers never fires: no gradient, so no step."""
    with torch.no_grad():
        for part in (model.encoder, model.decoder):
            for layer in getattr(part, "convs", getattr(part, "layers", ()))[:-1]:
                layer.bias[::2] = -100.0


def reference_losses(config, weights, heldout):
    """Of a new model with ``weights``, in plain PyTorch."""
    model = VAE(config)
    model.load_state_dict(weights)
    with vk.use_backend("reference"):
        return evaluate(model, heldout, batch=CONFIG.batch, seed=CONFIG.seed).to_dict("heldout_")


@pytest.mark.parametrize(
    ("name", "amp", "dead"),
    [
        *((name, "off", dead) for name in MODELS for dead in (False, True)),
        ("one pixel", "bf16", False),
        ("one pixel", "bf16", True),
    ],
)
def test_logged_elbo_is_that_of_the_weights(squares, tmp_path, monkeypatch, name, amp, dead):
    saved, save, create = [], _Trainer._save, _Trainer.create

    def spy(self, folder):
        saved.append({k: v.clone() for k, v in self.model.state_dict().items()})
        save(self, folder)

    def with_dead_units(self, *arguments):
        kill_units(self.model)
        create(self, *arguments)

    monkeypatch.setattr(_Trainer, "_save", spy)
    if dead:
        monkeypatch.setattr(_Trainer, "create", with_dead_units)
    config = replace(CONFIG, amp=amp)
    folder = train(squares, MODELS[name], config, tmp_path / "run", progress=False)
    heldout = split(squares, CONFIG.heldout)[1]
    history = folder.metrics()
    assert len({record["heldout_elbo"] for record in history}) == CONFIG.epochs
    for weights, record in zip(saved[1:], history, strict=True):
        right = reference_losses(MODELS[name], weights, heldout)
        assert {key: record[key] for key in right} == pytest.approx(right, rel=1e-5), record


@pytest.mark.parametrize(
    "compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("name", ["plain", "one pixel"])
def test_compiled_training_steps_and_evaluation(squares, name, compiler, dead):
    torch.compiler.reset()
    torch.manual_seed(0)
    models = VAE(MODELS[name]), VAE(MODELS[name])
    if dead:
        kill_units(models[0])
    models[1].load_state_dict(models[0].state_dict())
    ours, reference = (torch.optim.Adam(m.parameters(), lr=1e-2, fused=True) for m in models)
    training, heldout = split(squares, CONFIG.heldout)
    images = training.batch(torch.arange(len(training)), torch.device("cpu"))
    compiled = torch.compile(models[0], backend=compiler, fullgraph=True)

    def step(model, optimizer, seed):
        loss = model(images, seed=seed).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    for _ in range(4):
        got = step(compiled, ours, 1)
        with vk.use_backend("reference"):
            right = step(models[1], reference, 1)
        assert got == pytest.approx(right, rel=1e-4)
        with torch.no_grad():
            seen = compiled(images, seed=2).loss.item()
        logged = evaluate(models[0], heldout, batch=CONFIG.batch, seed=CONFIG.seed)
        right = reference_losses(MODELS[name], models[0].state_dict(), heldout)
        assert logged.to_dict("heldout_") == pytest.approx(right, rel=1e-5)
        with vk.use_backend("reference"), torch.no_grad():
            assert seen == pytest.approx(models[0](images, seed=2).loss.item(), rel=1e-5)
