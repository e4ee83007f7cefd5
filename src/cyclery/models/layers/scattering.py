"""Wavelet scattering of order 2: fixed descriptors of images, and a stem made of them.

- J. Bruna, S. Mallat, Invariant Scattering Convolution Networks (IEEE TPAMI 2013, arXiv 1203.1513):
  Morlet wavelets psi at scales j < J and L orientations, a Gaussian phi at scale J, and

      S0 = x * phi,  S1 = |x * psi_1| * phi,  S2 = ||x * psi_1| * psi_2| * phi  with j_2 > j_1

  all of them at every 2^J-th pixel.
- E. Oyallon, E. Belilovsky, S. Zagoruyko, Scaling the Scattering Transform (ICCV 2017, arXiv
  1703.08961): a network on top. The constants of the wavelets, and the order of what comes out, are
  those of the package kymatio (Andreux et al., JMLR 2020), so that both give the same numbers, but
  for its pi of 3.1415.

Deviation from the benchmark's code (GEM, arXiv 2212.12478): in its ResNet-50 the batch norm after
scattering has the momentum 0.9, and the convolution a bias, which does nothing before a norm.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi, sin

import torch
from torch import Tensor, nn

from cyclery.models._settings import Shape
from cyclery.models.layers import conv_3x3, reflected

ORIENTATIONS = 8


def coefficients(scales: int) -> int:
    """Return how many maps order 2 makes of each channel of an image."""
    pairs = scales * (scales - 1) // 2
    return 1 + ORIENTATIONS * scales + ORIENTATIONS**2 * pairs


def padded(side: int, scales: int) -> int:
    """Return the side after padding: whole steps of 2^J, with one to spare on each side."""
    step: int = 2**scales
    return ((side + step) // step + 1) * step


class Scattering(nn.Module):
    """Scattering coefficients of images of one size.

    Every map is computed at the resolution of its frequencies: after a wavelet of scale j, at every
    2^j-th pixel. Nothing is learnt, so the filters are no part of a network's weights.

    Args:
        height, width: of the images, each more than 2^scales.
        scales: J, at least 1.
    """

    low: Tensor

    def __init__(self, height: int, width: int, scales: int) -> None:
        super().__init__()
        self.scales = scales
        sides = [padded(side, scales) for side in (height, width)]
        self.margins = [
            ((big - side) // 2, big - side - (big - side) // 2)
            for big, side in zip(sides, (height, width), strict=True)
        ]
        low = _spectrum(_gabor(sides, 0.8 * 2 ** (scales - 1), 0.0, 0.0, 1.0))
        waves = [
            torch.stack([_spectrum(_morlet(sides, j, turn)) for turn in range(ORIENTATIONS)])
            for j in range(scales)
        ]
        for level in range(scales):
            self._keep(f"low{level}", low, level, scales)
            for j in range(scales):
                # Those of the first order at full size, those of the second after another.
                if level == 0 or j > level:
                    self._keep(f"wave{j}_{level}", waves[j], level, j)

    def _keep(self, name: str, spectrum: Tensor, level: int, then: int) -> None:
        """Keep a filter for maps at every 2^level-th pixel, of which every 2^then-th is left."""
        # A sum of 4^(then - level) parts of the spectrum follows, where their mean is meant.
        found = _periodic(spectrum, level) / 4 ** (then - level)
        self.register_buffer(name, found.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return images [B, C, H, W] as [B, C * coefficients, H // 2^J, W // 2^J].

        Of each channel come S0, S1 by (j, orientation), S2 by (j_1, orientation_1, j_2,
        orientation_2).
        """
        batch, channels = x.shape[:2]
        x = x.float().flatten(0, 1)
        for dim, (before, after) in zip((-2, -1), self.margins, strict=True):
            x = reflected(x, dim, before, after)
        spectrum = torch.fft.fft2(x)[:, None]
        first, second = [self._smooth(spectrum, 0)], []
        for j in range(self.scales):
            inner = torch.fft.fft2(self._modulus(spectrum, j, 0))
            first.append(self._smooth(inner, j))
            further = [
                self._smooth(torch.fft.fft2(self._modulus(inner[:, :, None], k, j)), k)
                for k in range(j + 1, self.scales)
            ]
            if further:
                second.append(torch.stack(further, 2).flatten(1, 3))
        found = torch.cat((*first, *second), 1)
        return found.view(batch, channels * found.shape[1], *found.shape[2:])

    def _modulus(self, spectrum: Tensor, j: int, level: int) -> Tensor:
        """Return |x * psi_j| in all orientations, at every 2^j-th pixel, of x at every 2^level."""
        wave = self.get_buffer(f"wave{j}_{level}")
        return torch.fft.ifft2(_folded(spectrum * wave, 2 ** (j - level))).abs()

    def _smooth(self, spectrum: Tensor, level: int) -> Tensor:
        """Return x * phi at every 2^J-th pixel, without the margins, of x at every 2^level."""
        low = spectrum * self.get_buffer(f"low{level}")
        maps = torch.fft.ifft2(_folded(low, 2 ** (self.scales - level))).real
        return maps[..., 1:-1, 1:-1]


class ScatteringStem(nn.Sequential):
    """Scattering, batch norm without weights, 3x3 convolution to ``outputs``, norm, activation.

    The first batch norm has the momentum and eps of the other.
    """

    def __init__(
        self,
        shape: Shape,
        outputs: int,
        scales: int,
        norm: Callable[[int], nn.Module],
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        channels, height, width = shape
        maps = channels * coefficients(scales)
        after = norm(outputs)
        assert isinstance(after, nn.BatchNorm2d), "ConvolutionSettings.check refuses others"
        super().__init__(
            Scattering(height, width, scales),
            nn.BatchNorm2d(maps, after.eps, after.momentum, affine=False),
            conv_3x3(maps, outputs),
            after,
            activation(),
        )


def _gabor(sides: list[int], sigma: float, angle: float, frequency: float, slant: float) -> Tensor:
    """Return a Gaussian times a plane wave on a torus [M, N], complex."""
    c, s, square = cos(angle), sin(angle), slant**2
    scale = 1 / (2 * sigma**2)
    a, b, d = c * c + square * s * s, (1 - square) * c * s, s * s + square * c * c
    # Summed over 5 x 5 copies of the torus, beyond which there is nothing.
    down, along = (torch.arange(-2 * n, 3 * n, dtype=torch.float64) for n in sides)
    y, x = torch.meshgrid(down, along, indexing="ij")
    decay = -scale * (a * y * y + 2 * b * y * x + d * x * x)
    wave = torch.exp(torch.complex(decay, frequency * (c * y + s * x)))
    total = wave.view(5, sides[0], 5, sides[1]).sum((0, 2))
    return total / (2 * pi * sigma**2 / slant)


def _morlet(sides: list[int], j: int, turn: int) -> Tensor:
    """Return the wavelet of scale j and an orientation on a torus [M, N]: its mean is 0."""
    angle = (ORIENTATIONS // 2 - 1 - turn) * pi / ORIENTATIONS
    sigma, slant = 0.8 * 2**j, 4 / ORIENTATIONS
    wave = _gabor(sides, sigma, angle, 3 / 4 * pi / 2**j, slant)
    envelope = _gabor(sides, sigma, angle, 0.0, slant)
    return wave - wave.sum() / envelope.sum() * envelope


def _spectrum(filter: Tensor) -> Tensor:
    # Real, since the Gaussian is even and the wave is Hermitian.
    return torch.fft.fft2(filter).real


def _periodic(spectrum: Tensor, level: int) -> Tensor:
    """Return the spectrum of a filter at every 2^level-th pixel, cut off at what that can hold."""
    step = 2**level
    for dim in (-2, -1):
        side = spectrum.shape[dim]
        place = torch.arange(side)
        start = side // (2 * step)
        gap = (place >= start) & (place < start + side - side // step)
        spectrum = spectrum * (~gap).view(*[-1 if d == dim else 1 for d in (-2, -1)])
    return _folded(spectrum, step)


def _folded(spectrum: Tensor, step: int) -> Tensor:
    """Return the sums [..., M / step, N / step] of the parts of [..., M, N]; step is 2^n.

    Halves are added to each other, since a sum of complex numbers over dimensions is slow on a CPU.
    """
    while step > 1:
        for dim in (-2, -1):
            first, second = spectrum.chunk(2, dim)
            spectrum = first + second
        step //= 2
    return spectrum
