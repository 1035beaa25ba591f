"""The DRAW VAE: attention against the paper, seeds, what depends on what, and that it learns."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stylestream import draw
from stylestream.draw import (
    Draw,
    DrawConfig,
    GaussianAttention,
    PatchCritic,
    PatchRead,
    PatchWrite,
    RowMix,
    Texture,
    cell_noise,
    from_windows,
    gaussian_filters,
    gaussian_kl,
    lift_partials,
    to_windows,
)

SMALL = DrawConfig(
    n_bins=36, styles=3, steps=3, latents=2, view_channels=8, view_blocks=1, canvas_channels=4, encoder_channels=6, decoder_channels=8,
    style_dim=5, mix_groups=2, texture_channels=6, texture_blocks=1,
)  # fmt: skip
GAUSSIAN = replace(SMALL, attention="gaussian", glimpse=4, window_frames=8)
BOTH = pytest.mark.parametrize("config", [SMALL, GAUSSIAN], ids=["conv", "gaussian"])


def network(config: DrawConfig, *, lively: bool = True) -> Draw:
    """A network with random weights; lively: writes are as large as after training, so that everything it does can be seen."""
    torch.manual_seed(0)
    net = Draw(config)
    if lively:
        with torch.no_grad():
            for module in net.modules():
                if isinstance(module, PatchWrite):
                    module.weight.mul_(20)
    return net.eval()


def frames(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def beats(batch: int, T: int) -> Tensor:
    angle = torch.arange(T) * 0.3
    return torch.stack([angle.sin(), angle.cos(), (angle / 4).sin(), (angle / 4).cos()]).expand(batch, -1, -1)


def dials(net: Draw, view: Tensor, **more) -> Tensor:
    return net.transfer(view, phase=beats(view.shape[0], view.shape[-1]), **more)


def far(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


# --- Gaussian attention: the paper's equations 19 to 29 ------------------------------------------------------------------


def paper_filters(parameters: list[float], A: int, B: int, N: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Equations 21 to 26 as they are printed, indices from 1, for an image of B rows and A columns: F_X, F_Y and γ."""
    g_x, g_y, log_variance, log_stride, log_gamma = parameters
    g_X, g_Y = (A + 1) / 2 * (g_x + 1), (B + 1) / 2 * (g_y + 1)
    delta = (max(A, B) - 1) / (N - 1) * math.exp(log_stride)
    filters = []
    for g, size in ((g_X, A), (g_Y, B)):
        F = np.zeros((N, size))
        for i in range(1, N + 1):
            mu = g + (i - N / 2 - 0.5) * delta
            for a in range(1, size + 1):
                F[i - 1, a - 1] = math.exp(-((a - mu) ** 2) / (2 * math.exp(log_variance)))
            F[i - 1] /= F[i - 1].sum()
        filters.append(F)
    return filters[0], filters[1], math.exp(log_gamma)


def paper_read(image: np.ndarray, parameters: list[float], N: int) -> np.ndarray:
    """Equation 27, pixel by pixel."""
    B, A = image.shape
    F_X, F_Y, gamma = paper_filters(parameters, A, B, N)
    glimpse = np.zeros((N, N))
    for i in range(N):
        for j in range(N):
            for b in range(B):
                for a in range(A):
                    glimpse[i, j] += gamma * F_Y[i, b] * image[b, a] * F_X[j, a]
    return glimpse


def paper_write(patch: np.ndarray, parameters: list[float], A: int, B: int) -> np.ndarray:
    """Equation 29, pixel by pixel."""
    N = patch.shape[0]
    F_X, F_Y, gamma = paper_filters(parameters, A, B, N)
    image = np.zeros((B, A))
    for b in range(B):
        for a in range(A):
            for i in range(N):
                for j in range(N):
                    image[b, a] += F_Y[i, b] * patch[i, j] * F_X[j, a] / gamma
    return image


def attention(size: int, N: int, *, window: int | None = None) -> GaussianAttention:
    return GaussianAttention(
        DrawConfig(n_bins=size, patch_bins=2, attention="gaussian", glimpse=N, window_frames=window or size, decoder_channels=5)
    )


def placed(parameters: list[list[float]], size: int, N: int, *, window: int | None = None) -> tuple[GaussianAttention, Tensor]:
    """An attention whose hidden state *is* its five parameters: g̃_X, g̃_Y, log σ², log δ̃, log γ."""
    module = attention(size, N, window=window)
    with torch.no_grad():
        module.place.weight.copy_(torch.eye(5))
        module.place.bias.zero_()
    return module, torch.tensor(parameters)


PLACES = [[0.0, 0.0, 0.0, 0.0, 0.0], [0.3, -0.4, 1.0, -0.7, 0.5], [-0.8, 0.9, -0.5, -0.3, -1.0]]


def test_read_is_the_papers_equation_27(rng):
    image = rng.random((10, 10))
    module, h = placed(PLACES, 10, 4)
    glimpses = module.read(torch.from_numpy(image).float().expand(3, -1, -1), h)
    for parameters, glimpse in zip(PLACES, glimpses, strict=True):
        np.testing.assert_allclose(glimpse.detach().numpy(), paper_read(image, parameters, 4), atol=1e-5)


def test_write_is_the_papers_equation_29(rng):
    patch = rng.standard_normal((4, 4))
    module, h = placed(PLACES, 10, 4)
    images = module.write(torch.from_numpy(patch).float().expand(3, -1, -1), h)
    for parameters, image in zip(PLACES, images, strict=True):
        np.testing.assert_allclose(image.detach().numpy(), paper_write(patch, parameters, 10, 10), rtol=1e-4, atol=1e-5)


def test_a_grid_as_fine_as_the_window_reads_and_writes_the_window_itself(rng):
    # N = size, δ̃ = 1: a mean on every point; narrow filters see nothing beside it
    image = torch.from_numpy(rng.standard_normal((1, 8, 8))).float()
    module, h = placed([[0.0, 0.0, math.log(0.01), 0.0, 0.0]], 8, 8)
    torch.testing.assert_close(module.read(image, h), image)
    torch.testing.assert_close(module.write(image, h), image)


def test_on_a_window_that_is_not_square_the_grid_covers_both_sides():
    module, h = placed([[0.0, 0.0, 2 * math.log(3.0), 0.0, 0.0]], 24, 4, window=8)
    F_y, F_x, _ = (filters.detach() for filters in module.filters(h))
    where_y, where_x = (
        F_y[0] @ torch.arange(24.0),
        F_x[0] @ torch.arange(8.0),
    )  # means of the filters; the outer ones are cut off by the edge
    torch.testing.assert_close(where_y[1:3], torch.tensor([23 / 3, 46 / 3]), atol=0.1, rtol=0)
    torch.testing.assert_close(where_x[1:3], torch.tensor([7 / 3, 14 / 3]), atol=0.1, rtol=0)


def test_a_glimpse_is_the_image_seen_through_gaussians():
    # far from the edge, a sine under a filter of width σ keeps exp(−(2πfσ)²/2) of its amplitude
    f, sigma = 0.05, 2.0
    point = torch.arange(200.0)
    rows = gaussian_filters(torch.tensor([100.0]), torch.tensor([7.0]), torch.tensor([sigma]), glimpse=6, size=200)[0]
    seen = rows @ torch.sin(2 * math.pi * f * point)
    mean = 100 + (torch.arange(6) - 2.5) * 7
    expected = math.exp(-((2 * math.pi * f * sigma) ** 2) / 2) * torch.sin(2 * math.pi * f * mean)
    torch.testing.assert_close(seen, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("way", ["read", "write"])
def test_every_one_of_the_five_parameters_learns(rng, way):
    module, h = placed([[0.1, -0.2, 0.5, -0.5, 0.3]], 10, 4)
    h.requires_grad_()
    size = 10 if way == "read" else 4
    getattr(module, way)(torch.from_numpy(rng.random((1, size, size))).float(), h).square().sum().backward()
    assert h.grad is not None
    assert (h.grad.abs() > 1e-4).all()


def test_windows_there_and_back_again():
    x = frames(2, 5, 12)
    windows = to_windows(x, 4)
    assert torch.equal(windows[4], x[1, :, 4:8])  # the second song's second window
    assert torch.equal(from_windows(windows, 2), x)


# --- against another's answer --------------------------------------------------------------------------------------------


def test_kl_is_that_of_torch_distributions():
    g = torch.Generator().manual_seed(0)
    q_mean, q_log, p_mean, p_log = torch.randn(4, 1000, generator=g)
    ours = gaussian_kl((q_mean, q_log), (p_mean, p_log))
    normal = torch.distributions.Normal
    torch.testing.assert_close(ours, torch.distributions.kl_divergence(normal(q_mean, q_log.exp()), normal(p_mean, p_log.exp())))


@pytest.mark.parametrize("patch", [(6, 4), (6, 2), (2, 8)])
def test_a_write_is_a_transposed_convolution(patch):
    torch.manual_seed(0)
    ours, h = PatchWrite(5, patch), torch.randn(2, 5, 7, 9)
    theirs = nn.ConvTranspose2d(5, 1, [2 * p for p in patch], stride=patch, padding=[p // 2 for p in patch])
    theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        theirs.bias.fill_(0.3)
        ours.bias.fill_(0.3)
    torch.testing.assert_close(ours(h), theirs(h), atol=1e-6, rtol=1e-5)
    weights = torch.randn_like(ours(h))
    (ours(h) * weights).sum().backward()
    (theirs(h) * weights).sum().backward()
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, atol=1e-4, rtol=1e-4)


def test_a_write_is_the_adjoint_of_a_patch_read():
    # ⟨read x, h⟩ = ⟨x, write h⟩ with the same weights and no bias: that is what "transpose" means
    torch.manual_seed(0)
    read, write = PatchRead(5, (6, 4)), PatchWrite(5, (6, 4))
    with torch.no_grad():
        read.weight.copy_(write.weight)
        read.bias.zero_()
    x, h = torch.randn(1, 1, 42, 36), torch.randn(1, 5, 7, 9)
    assert (read(x) * h).sum().item() == pytest.approx((x * write(h)).sum().item(), rel=1e-4)


@pytest.mark.parametrize("frames", [36, 37, 38, 39])  # clips end where they end
def test_a_patch_read_is_the_convolution_that_its_weights_say(frames):
    torch.manual_seed(0)
    read, x = PatchRead(5, (6, 4)), torch.randn(2, 1, 42, frames)
    torch.testing.assert_close(read(x), torch.nn.Conv2d.forward(read, x), atol=1e-5, rtol=1e-4)


def test_a_row_mix_hears_every_row_and_no_other_frame():
    torch.manual_seed(0)
    mix = RowMix(9, 4, 2)
    h = torch.zeros(1, 4, 9, 5)
    h[0, 3, 7, 2] = 1.0
    out = (mix(h) - h).detach()
    torch.testing.assert_close(out[0, 3, :, 2], mix.weight[1, :, 7].detach())
    out[0, 3, :, 2] = 0
    assert out.count_nonzero() == 0


# --- noise ---------------------------------------------------------------------------------------------------------------


def noise(*, shape=(1, 4, 54, 400), seed=0, step=0, first_cell=0) -> Tensor:
    return cell_noise(shape, seed=seed, step=step, first_cell=first_cell)


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def test_noise_is_standard_normal():
    from scipy import stats

    n = noise().flatten().numpy()
    assert abs(n.mean()) < 0.01
    assert n.std() == pytest.approx(1, abs=0.01)
    assert stats.kstest(n, "norm").pvalue > 0.01


def test_a_seed_of_numpy_is_a_number():
    assert torch.equal(noise(shape=(1, 1, 2, 3), seed=5000), noise(shape=(1, 1, 2, 3), seed=np.int32(5000)))


def test_chunks_of_noise_are_the_noise_of_the_whole():
    whole = noise(shape=(1, 2, 5, 40), first_cell=1_000_000)
    for first, last in ((0, 1), (7, 23), (39, 40)):
        part = noise(shape=(1, 2, 5, last - first), first_cell=1_000_000 + first)
        assert torch.equal(part, whole[..., first:last])


def test_every_row_of_a_batch_draws_the_same():
    n = noise(shape=(3, 2, 5, 8))
    assert torch.equal(n[0], n[2])


@pytest.mark.parametrize("other", [{"seed": 1}, {"seed": -1}, {"seed": 10**12}, {"step": 1}, {"first_cell": 1}], ids=str)
def test_other_seeds_steps_and_neighbours_draw_something_else(other):
    # 86,400 pairs: a correlation beyond 0.015 is more than four standard deviations from none
    assert abs(correlation(noise(), noise(**other))) < 0.015


@pytest.mark.parametrize("axis", [1, 2])
def test_channels_and_rows_are_uncorrelated(axis):
    n = noise()
    assert abs(correlation(n.narrow(axis, 0, n.shape[axis] - 1), n.narrow(axis, 1, n.shape[axis] - 1))) < 0.017


def test_noise_is_frozen():
    # a seed is part of a published result: it must mean the same in every version
    n = noise(shape=(1, 1, 1, 4), seed=7, step=2, first_cell=100).flatten()
    torch.testing.assert_close(n, torch.tensor([1.437231, 0.734527, -0.037925, -1.140740]), atol=1e-6, rtol=0)


def test_noise_for_a_device_without_float64_is_computed_on_the_cpu():
    assert draw.noise_device("mps") == torch.device("cpu")
    assert draw.noise_device(torch.device("cuda", 1)) == torch.device("cuda", 1)


# --- gradient as probe ---------------------------------------------------------------------------------------------------


@BOTH
def test_the_loss_reaches_every_parameter(config):
    net = network(config).train()
    out = net(frames(3, 36, 16), frames(3, 36, 16, seed=2), torch.arange(3), beats(3, 16))
    out["loss/total"].backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == []


def test_the_texture_does_not_pull_at_the_canvas():
    net = network(SMALL).train()
    net(frames(2, 36, 16), frames(2, 36, 16, seed=2), torch.arange(2), beats(2, 16))["loss/texture_db"].backward()
    assert {name.split(".")[0] for name, p in net.named_parameters() if p.grad is not None} == {"texture"}


@pytest.mark.parametrize("config", [replace(SMALL, steps=2), replace(GAUSSIAN, steps=2), replace(SMALL, steps=2, texture_channels=0)])
def test_a_frame_sees_no_further_than_context_frames(config):
    net = network(config)
    reach = net.context_frames
    T = 2 * reach + 4 * config.grid_frames
    t = T // 2
    view = frames(1, 36, T)
    painted = [dials(net, v, grain=0.7, dream=0.5) for v in (view, view.index_fill(2, torch.tensor([t]), 0.0))]
    seen = (painted[0] - painted[1]).abs().amax((0, 1)).nonzero().flatten()
    assert 0 < t - int(seen.min()) <= reach
    assert 0 < int(seen.max()) - t <= reach
    assert t - int(seen.min()) > config.grid_frames  # and it does see its neighbours


# --- two ways, one result ------------------------------------------------------------------------------------------------


@BOTH
def test_a_batch_is_its_songs_one_by_one(config):
    net, view = network(config), frames(3, 36, 24)
    batch = dials(net, view, style=torch.arange(3), dream=1.0)
    for i in range(3):
        torch.testing.assert_close(dials(net, view[i : i + 1], style=i, dream=1.0), batch[i : i + 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", [replace(SMALL, steps=2, partial_lift=0.5), replace(GAUSSIAN, steps=2)], ids=["conv", "gaussian"])
@pytest.mark.parametrize("chunk_cells", [1, 5])
def test_chunks_are_the_whole(config, chunk_cells):
    net = network(config)
    reach, chunk = net.context_frames, chunk_cells * config.grid_frames
    T = 2 * reach + 3 * chunk + 1
    view, where, start = frames(1, 36, T), beats(1, T), 10 * config.grid_frames
    whole = net.transfer(view, phase=where, dream=0.5, seed=5, first_frame=start)
    for first in range(0, T, max(chunk, reach // config.grid_frames * config.grid_frames)):
        inner = slice(first, min(first + chunk, T))
        left, right = max(first - reach, 0), min(first + chunk + reach, T)
        part = net.transfer(view[..., left:right], phase=where[..., left:right], dream=0.5, seed=5, first_frame=start + left)
        assert far(part[..., first - left :][..., : inner.stop - first], whole[..., inner]) < 1e-5


def test_a_blend_that_is_one_style_is_that_style():
    net, view = network(SMALL), frames(2, 36, 16)
    one_hot = torch.tensor([[0.0, 1.0, 0.0]] * 2)
    assert torch.equal(dials(net, view, style=one_hot), dials(net, view, style=1))
    assert far(dials(net, view, style=1), dials(net, view, style=2)) > 0.01


def test_a_blend_lies_between_its_styles():
    net, view = network(SMALL), frames(1, 36, 16)
    rock, both, choir = (dials(net, view, style=torch.tensor([w])) for w in ([1.0, 0, 0], [0.5, 0.5, 0], [0, 1.0, 0]))
    assert max(far(rock, both), far(both, choir)) < far(rock, choir)


def test_unknown_beats_are_zeros_and_known_ones_are_heard():
    net, view = network(SMALL), frames(1, 36, 16)
    assert torch.equal(net.transfer(view), net.transfer(view, phase=torch.zeros(1, 4, 16)))
    assert far(net.transfer(view), dials(net, view)) > 1e-3


def test_half_precision_is_the_same_painting():
    net, view = network(SMALL), frames(1, 36, 64)
    exact = dials(net, view)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = dials(net, view)
    assert rounded.dtype == torch.float32
    assert 0 < far(rounded, exact) < 0.1 * far(exact, view)
    assert all(p.dtype == torch.float32 for p in net.parameters())  # the cast is the transfer's own


def test_training_and_transfer_paint_the_same(monkeypatch):
    # at the posterior's mean, grain 0 and no dream, the canvas of the loss is the canvas of the transfer: two ways through the gates
    net, view = network(replace(SMALL, texture_channels=0)), frames(2, 36, 16)
    monkeypatch.setattr(draw, "sample", lambda gaussian, *noise: gaussian[0])
    out = net(view, view, torch.zeros(2, dtype=torch.long), beats(2, 16))
    torch.testing.assert_close(out["canvas"].detach(), dials(net, view, grain=0.0), atol=1e-5, rtol=0)


def obvious_canvas(net: Draw, view: Tensor, phase: Tensor, style: int) -> Tensor:
    """The K steps of a convolutional network at the posterior's mean, as the module's docstring has them, with no thought of speed."""
    w = dict(net.named_parameters())

    def conv(name: str, h: Tensor, **how) -> Tensor:
        return torch.nn.functional.conv2d(h, w[name + ".weight"], w[name + ".bias"], **how)

    def lstm(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, o, g = gates.chunk(4, 1)
        c = torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def beats_to_cells(name: str) -> Tensor:
        cells = torch.nn.functional.conv1d(phase, w[name + ".weight"], w[name + ".bias"], stride=net.config.patch_frames)
        return cells[:, :, None]

    def linear(name: str) -> Tensor:
        return (w[name + ".weight"] @ w["style"][style] + w[name + ".bias"])[None, :, None, None]

    patch = {
        "stride": (net.config.patch_bins, net.config.patch_frames),
        "padding": (net.config.patch_bins // 2, net.config.patch_frames // 2),
    }
    h = conv("read.view", view[:, None], **patch) + w["read.row"] + beats_to_cells("read.phase")
    h = conv("read.static", torch.nn.functional.gelu(net.read.mix(net.read.blocks(h))), padding=1)  # type: ignore[operator]
    static, W = h, h.shape[-1]
    h_dec = (w["start"] + linear("style_start")).expand(view.shape[0], -1, -1, W)
    h_enc = torch.zeros(view.shape[0], net.config.encoder_channels, h_dec.shape[2], W)
    c_enc, c_dec = torch.zeros_like(h_enc), torch.zeros_like(h_dec)
    canvas = net.mean_frames[style][None, :, None].expand_as(view)
    for _ in range(net.config.steps):
        r = conv("read.canvas", canvas[:, None], **patch)
        h_enc, c_enc = lstm(conv("encoder", torch.cat([r, h_enc, h_dec], 1), padding=1) + static, c_enc)
        z = conv("q", h_enc)[:, : net.config.latents]
        always = beats_to_cells("phase") + linear("style_gates")
        h_dec, c_dec = lstm(conv("decoder", torch.cat([z, h_dec], 1), padding=1) + always, c_dec)
        mixed = net.write.mix(h_dec * (1 + linear("style_film")))  # type: ignore[operator]
        canvas = canvas + torch.nn.functional.conv_transpose2d(mixed, w["write.write.weight"], w["write.write.bias"], **patch)[:, 0]
    return canvas


def test_what_is_painted_is_what_the_equations_say():
    net, view = network(replace(SMALL, texture_channels=0)), frames(2, 36, 16)
    with torch.no_grad():
        expected = obvious_canvas(net, view, beats(2, 16), 1)
    torch.testing.assert_close(dials(net, view, style=1), expected, atol=1e-5, rtol=0)


def test_training_draws_its_latents():
    net, view = network(SMALL), frames(2, 36, 16)
    painted = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        painted.append(net(view, view, torch.zeros(2, dtype=torch.long), beats(2, 16))["canvas"].detach())
    assert torch.equal(painted[0], painted[1])
    assert far(painted[0], painted[2]) > 1e-3


# --- the dials -----------------------------------------------------------------------------------------------------------


def test_a_dream_of_all_latents_forgets_the_song():
    net = network(replace(SMALL, texture_channels=0))
    a, b = frames(1, 36, 16), frames(1, 36, 16, seed=2)
    assert far(dials(net, a, dream=3), dials(net, b, dream=3)) == 0


@pytest.mark.parametrize("dream", [1, 2, 3])
def test_a_dream_of_k_replaces_exactly_the_last_k_latents(dream, monkeypatch):
    net, view = network(replace(SMALL, texture_channels=0)), frames(1, 36, 16)
    used: list[Tensor] = []

    def spy(self, own_dream, *rest, choose=Draw._dreamer):
        pick = choose(self, own_dream, *rest)

        def choose_and_tell(k, h_enc, h_dec):
            z, cost = pick(k, h_enc, h_dec)
            song, style = self.posterior(h_enc)[0], self.prior(h_dec)[0]
            used.append((far(z, song), far(z, style)))
            return z, cost

        return choose_and_tell

    monkeypatch.setattr(Draw, "_dreamer", spy)
    dials(net, view, dream=float(dream), grain=0.0)
    for k, (from_song, from_style) in enumerate(used):
        assert (from_style if k >= 3 - dream else from_song) == 0
        assert (from_song if k >= 3 - dream else from_style) > 1e-3
    assert len(used) == 3


# --- notes that the canvas lets go ----------------------------------------------------------------------------------------


def chord(*levels: float, octaves: int = 9) -> Tensor:
    """Frames (1, 36 octaves, 8) of a floor at 0.2 with a partial at each fifth octave's rows: one level each, from row 60 up."""
    x = torch.full((1, 36 * octaves, 8), 0.2)
    for index, level in enumerate(levels):
        x[:, 60 + 48 * index] = level
    return x


def test_a_note_fainter_than_in_the_song_is_raised_by_its_share_of_what_is_missing():
    song, canvas = chord(0.8, 0.8), chord(0.8, 0.4)
    lifted = lift_partials(canvas, song, 0.5)
    assert lifted[0, 108, 0] - canvas[0, 108, 0] == pytest.approx(0.5 * 0.4 * 36 / 37, abs=0.01)  # all but what an octave's mean has of it
    assert abs(lifted[0, 60] - canvas[0, 60]).max() < 0.01


def test_lifting_leaves_level_and_timbre_alone():
    song, canvas = chord(0.8, 0.8, 0.7), chord(0.3, 0.4, 0.3)
    loud = lift_partials(canvas, song + 0.2, 0.5)  # a louder song is no more to lift
    assert far(loud, lift_partials(canvas, song, 0.5)) < 1e-6
    assert abs((loud - canvas).mean()) < 1e-3


def test_overtones_and_what_is_no_partial_are_not_lifted():
    canvas = chord()
    high, faint = chord(), chord()
    high[:, 36 * 7] = 0.9  # 4.2 kHz
    faint[:, 100] += 5 / 90
    assert far(lift_partials(canvas, high, 1.0), canvas) == far(lift_partials(canvas, faint, 1.0), canvas) == 0


def test_a_canvas_whose_partials_stand_out_further_keeps_them():
    assert far(lift_partials(chord(0.9, 0.7), chord(0.6, 0.5), 1.0), chord(0.9, 0.7)) == 0


def test_what_is_dreamed_up_is_not_lifted_to_the_songs_notes():
    plain, lifting = (network(replace(SMALL, n_bins=324, partial_lift=lift)) for lift in (0.0, 0.5))
    song = chord(0.9, 0.8, 0.9)
    assert far(dials(plain, song), dials(lifting, song)) > 0.05
    assert far(dials(plain, song, dream=3.0), dials(lifting, song, dream=3.0)) == 0


def test_the_further_the_dream_the_further_from_the_song_in_small_steps():
    net, view = network(replace(SMALL, n_bins=72, steps=4)), frames(1, 72, 64)
    song = dials(net, view)
    distances = [float((dials(net, view, dream=d) - song).abs().mean()) for d in np.linspace(0, 4, 33)]
    steps = np.diff(distances)
    assert distances[0] == 0
    assert (steps > -0.02 * distances[-1]).all()
    assert steps.max() < 0.25 * distances[-1]
    for d in np.linspace(0, 3.9, 40):  # no jump, where a latent is used up or elsewhere
        assert far(dials(net, view, dream=d), dials(net, view, dream=d + 1e-3)) < 0.02 * far(dials(net, view, dream=4), song)


def test_every_step_and_the_texture_draw_noise_of_their_own(monkeypatch):
    drawn = []

    def spy(shape, **where):
        drawn.append((where["step"], where["first_cell"]))
        return cell_noise(shape, **where)

    monkeypatch.setattr(draw, "cell_noise", spy)
    dials(network(SMALL), frames(1, 36, 16), dream=2.0, first_frame=80)
    assert drawn == [(1, 20), (2, 20), (3, 40)]  # the texture's cells are half as long


def test_without_grain_no_seed_is_heard():
    net, view = network(SMALL), frames(1, 36, 16)
    still = [dials(net, view, grain=0.0, dream=2.0, seed=s) for s in (0, 1)]
    grainy = [dials(net, view, grain=1.0, dream=0.0, seed=s) for s in (0, 1)]
    assert torch.equal(*still)
    assert far(*grainy) > 1e-3
    assert torch.equal(grainy[0], dials(net, view, grain=1.0, seed=0))


def test_texture_without_grain_is_its_priors_mean():
    torch.manual_seed(0)
    net, view = network(SMALL), frames(1, 36, 16)
    kept = dials(net, view, grain=0.0, canvases=True)
    texture = net.texture
    assert isinstance(texture, Texture)
    with torch.no_grad():
        h = texture.context(kept[-2], net.style[:1])
        torch.testing.assert_close(kept[-1], kept[-2] + texture.decode(h, texture.prior(h)[0]), atol=1e-5, rtol=0)


def test_grain_is_the_spread_of_the_texture():
    net, view = network(SMALL), frames(1, 36, 16)
    smooth, some, more = (dials(net, view, grain=g) for g in (0.0, 0.5, 1.0))
    assert 0 < far(some, smooth) < far(more, smooth)


def test_the_middle_of_the_grain_is_the_styles():
    view = frames(1, 36, 16)
    squared, straight = (network(replace(SMALL, grain_power=power)) for power in (2.0, 1.0))
    straight.load_state_dict(squared.state_dict())
    assert torch.equal(dials(squared, view, grain=0.5), dials(straight, view, grain=0.25))


def test_canvases_are_kept_and_the_last_is_the_result():
    net, view = network(SMALL), frames(2, 36, 16)
    kept = dials(net, view, canvases=True, dream=1.0)
    assert kept.shape == (SMALL.steps + 1, 2, 36, 16)
    assert torch.equal(kept[-1], dials(net, view, dream=1.0))
    assert all(far(a, b) > 1e-3 for a, b in pairwise(kept))  # every step paints


def test_the_first_canvas_is_the_mean_spectrum_of_the_style():
    net = network(SMALL)
    net.mean_frames.copy_(frames(3, 36))
    for write in (net.write.write, net.texture.write):
        nn.init.zeros_(write.weight)
    painted = net.transfer(frames(1, 36, 8), style=2)
    torch.testing.assert_close(painted, net.mean_frames[2][None, :, None].expand(1, 36, 8))


@BOTH
@pytest.mark.parametrize("T", [1, 3, 10, 17])
def test_any_number_of_frames_will_do(config, T):
    net, view = network(config), frames(1, 36, T)
    padded = torch.nn.functional.pad(view, (0, -T % config.grid_frames))
    where = torch.nn.functional.pad(beats(1, T), (0, -T % config.grid_frames))
    assert torch.equal(dials(net, view), net.transfer(padded, phase=where)[..., :T])


@BOTH
def test_a_chunk_off_the_grid_is_refused(config):
    with pytest.raises(ValueError, match=f"first_frame 6 is not a multiple of {config.grid_frames}"):
        network(config).transfer(frames(1, 36, 8), first_frame=6)


# --- sizes ---------------------------------------------------------------------------------------------------------------


def test_the_default_network_keeps_the_budget():
    net = Draw(DrawConfig())
    assert 1 < net.gflop_per_second() <= 8  # DESIGN: everything shipped
    assert 2 * sum(p.numel() for p in net.parameters()) < 4 * 2**20  # bytes of a style file in fp16


def test_a_multiply_add_is_two_operations():
    # of the write alone, per cell: 8 channels × 96 points × 2; counted as the difference between two numbers of decoder channels is not
    net = network(replace(SMALL, texture_channels=0))
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.write.write(torch.zeros(1, 8, 6, 10))  # type: ignore[operator]
    assert counter.get_total_flops() == 2 * 8 * 96 * 60


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"attention": "foveal"}, "unknown attention 'foveal'; known: conv, gaussian"),
        ({"n_bins": 325}, "n_bins 325 is not a multiple of patch_bins 6"),
        ({"patch_bins": 3}, "patch_bins 3 is odd"),
        ({"patch_frames": 5}, "patch_frames 5 is odd"),
        ({"window_frames": 15}, "window_frames 15 is odd"),
    ],
)
def test_a_config_that_cannot_be_built_is_an_error(wrong, message):
    with pytest.raises(ValueError, match=message):
        DrawConfig(**wrong)


def test_a_config_survives_its_table():
    assert DrawConfig(**asdict(GAUSSIAN)) == GAUSSIAN


def test_a_critic_judges_patches_at_two_scales():
    torch.manual_seed(0)
    critic = PatchCritic(36, 3, channels=4)
    scores, features = critic(frames(2, 36, 16), torch.tensor([0, 2]))
    # bins halve three times, frames twice; the second scale starts at half of both
    assert [tuple(s.shape) for s in scores] == [(2, 1, 5, 4), (2, 1, 3, 2)]
    assert [f.shape[1] for f in features] == [4, 8, 8, 8] * 2
    with torch.no_grad():
        assert far(scores[0], critic(frames(2, 36, 16), torch.tensor([1, 1]))[0][0]) > 1e-4  # it knows which style it judges


# --- it learns -----------------------------------------------------------------------------------------------------------


def pattern(T: int = 32) -> tuple[Tensor, Tensor]:
    """A smooth view, and something else to paint, some 15 dB from flat: (4, 36, T) each."""
    view, target = (torch.nn.functional.interpolate(frames(4, 1, 9, 8, seed=s), (36, T), mode="bilinear")[:, 0] for s in (1, 2))
    return view, 0.1 + 1.4 * (target - 0.5).abs()


def trained(config: DrawConfig, steps: int, *, rate: float = 1e-2) -> Draw:
    net = network(config, lively=False).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    view, target = pattern()
    for _ in range(steps):
        loss = net(view, target, torch.zeros(4, dtype=torch.long), torch.zeros(4, 4, 32), beta=0.3)["loss/total"]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    return net.eval()


def way(painted: Tensor, target: Tensor) -> float:
    """Share of the distance from the best constant spectrum that is gone."""
    constant = target.median(0, keepdim=True).values.median(2, keepdim=True).values
    return 1 - float((painted - target).abs().mean() / (constant - target).abs().mean())


@pytest.fixture(scope="module")
def learned() -> Draw:
    return trained(replace(SMALL, texture_channels=0), 250)


def test_the_tiny_network_overfits_one_patch(learned):
    view, target = pattern()
    assert way(learned.transfer(view), target) > 0.45


def test_the_gaussian_network_learns_too():
    net = trained(replace(GAUSSIAN, texture_channels=0, glimpse=6, encoder_channels=32, decoder_channels=32), 120)
    view, target = pattern()
    assert way(net.transfer(view), target) > 0.3


def test_the_learned_prior_beats_a_constant_one(learned):
    # the posteriors' KL to the prior that was learned, and to the best that knows nothing of the canvas: one Gaussian a step and channel
    posteriors, to_learned, to_constant = [], 0.0, 0.0

    def choose(k, h_enc, h_dec):
        posteriors.append((learned.posterior(h_enc), learned.prior(h_dec)))
        return draw.sample(posteriors[-1][0]), None

    view, _ = pattern()
    torch.manual_seed(0)
    with torch.no_grad():
        learned.paint(view, torch.zeros(4, dtype=torch.long), torch.zeros(4, 4, 32), choose)
    for q, p in posteriors:
        center = q[0].mean((0, 2, 3), keepdim=True)
        variance = ((q[0] - center).square() + torch.exp(2 * q[1])).mean((0, 2, 3), keepdim=True)  # moments matched: the KL's minimum
        to_learned += float(gaussian_kl(q, p).mean())
        to_constant += float(gaussian_kl(q, (center, 0.5 * variance.log())).mean())
    assert to_constant > 0.01  # the latents say something
    assert to_learned < to_constant


def test_a_clip_is_heard_whatever_its_length_and_paints_as_its_vector_does():
    net = network(replace(SMALL, clip_channels=4))
    bins = SMALL.n_bins
    clip, view = frames(1, bins, 64, seed=3), frames(1, bins, 16)
    vector = net.clip_vector(clip)
    assert vector[0].shape == (1, net.config.style_dim)
    assert far(net.clip_vector(torch.cat([clip, clip], 2))[1], vector[1]) < 1e-5
    other = net.clip_vector(frames(1, bins, 64, seed=4) * 0.5)
    assert far(net.transfer(view, style=vector), net.transfer(view, style=other)) > 1e-4
    assert far(net.transfer(view, style=vector), net.transfer(view, style=net.style_vector(vector))) == 0


def test_a_network_without_an_ear_says_so():
    with pytest.raises(ValueError, match="no style encoder"):
        network(DrawConfig(steps=1, view_blocks=1)).clip_vector(frames(1, 324, 16))


# --- the post-net --------------------------------------------------------------------------------------------------------------------

POLISHED = replace(SMALL, postnet_channels=4)


def with_lively_postnet(config: DrawConfig) -> Draw:
    net = network(config)
    assert net.postnet is not None
    torch.manual_seed(7)
    nn.init.normal_(net.postnet.last.weight)
    return net


def test_a_fresh_postnet_changes_nothing():
    plain, polished = network(SMALL), network(POLISHED)
    polished.load_state_dict(plain.state_dict(), strict=False)
    view = frames(1, 36, 24)
    torch.testing.assert_close(dials(polished, view, grain=0.7), dials(plain, view, grain=0.7), atol=1e-5, rtol=0)


@pytest.mark.parametrize("attention", ["conv", "gaussian"])
def test_the_postnet_lies_within_the_context(attention):
    net = with_lively_postnet(replace(POLISHED, attention=attention, glimpse=4, window_frames=8, steps=2))
    T = 2 * net.context_frames + 2 * net.config.grid_frames
    view = frames(1, 36, T)
    there = net.transfer(view, phase=beats(1, T))
    changed = view.clone()
    changed[..., 0] += 1
    apart = (net.transfer(changed, phase=beats(1, T)) - there).abs().amax((0, 1))
    assert apart[net.context_frames + net.config.grid_frames :].max() == 0
    assert apart[: net.config.grid_frames].max() > 0


def test_grain_goes_past_the_postnet():
    net, view = with_lively_postnet(replace(POLISHED, grain_power=1.0)), frames(1, 36, 24)
    still = network(replace(SMALL, grain_power=1.0))
    still.load_state_dict({key: value for key, value in net.state_dict().items() if not key.startswith("postnet.")})
    added, expected = (dials(one, view, grain=1.0) - dials(one, view, grain=0.0) for one in (net, still))
    torch.testing.assert_close(added, expected, atol=1e-4, rtol=0)
