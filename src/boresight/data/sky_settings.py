"""What a synthetic sky is made of: every physical knob, and four settings of them. Imports no torch.

The presets: ``white`` (flat background, white noise: the one that the ideal observer is computed for), ``easy``,
``default`` and ``hard``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from boresight.core.errors import UserError, did_you_mean

Range = tuple[float, float]

_SHARES = ("empty_share", "quantum_efficiency", "cloud_share", "horizon_share", "dead_share")
_OPTICS = ("sigma", "ellipticity", "motion_blur")
_SCENE = ("background", "gradient", "clutter_exponent", "clutter_rms", "cloud_contrast", "horizon_contrast")
_PAIRS = ("targets", "snr", *_OPTICS, *_SCENE, "hot_share")


@dataclass(frozen=True)
class Sky:
    """Physical knobs of a synthetic frame. A pair is drawn from uniformly, once a frame (snr: once a target).

    Signals are in electrons (e-), lengths in pixels. Raises ``UserError`` for a value that no frame can have.
    """

    # The frame and its targets
    height: int = 480
    """Rows: 640x480 is the format of most uncooled infrared cameras."""
    width: int = 640
    """Columns."""
    targets: tuple[int, int] = (1, 5)
    """Fewest and most targets of a frame that is not empty (both included)."""
    empty_share: float = 0.3
    """Share of frames without any target: they are what shows false alarms."""
    snr: Range = (3.0, 12.0)
    """Matched-filter SNR of a target: below 3 nothing is demanded, above 12 nothing is hard."""
    demand_snr: float = 3.0
    """A target below this SNR is kept and marked don't-care (``Points.ignore``)."""
    min_separation: float = 12.0
    """Least distance of two targets: nearer ones blend, and one-to-one matching at 3 px loses its meaning."""
    border: float = 6.0
    """Least distance of a target from the frame's edge, so that its light is inside."""

    # The optics
    psf: Literal["gaussian", "moffat", "airy"] = "gaussian"
    """Gaussian: optics blurred by many small causes; Moffat: seeing, wide wings; Airy: the diffraction limit."""
    sigma: Range = (0.85, 1.25)
    """PSF width, for all models the sigma of the Gaussian of the same FWHM (FWHM = 2.355 sigma: 2 to 3 px)."""
    moffat_beta: float = 3.0
    """Slope of the Moffat wings: 2.5 to 4.8 in practice, smaller is wider."""
    ellipticity: Range = (0.0, 0.0)
    """1 - minor/major axis: astigmatism, coma at the edge of the field. The direction is drawn a frame."""
    motion_blur: Range = (0.0, 0.0)
    """Length of the straight smear during the exposure: pointing jitter, all targets of a frame alike."""

    # The scene
    background: Range = (700.0, 5000.0)
    """Mean photons a pixel and unit of exposure: sets the shot noise (e- = quantum_efficiency * exposure * photons)."""
    quantum_efficiency: float = 0.7
    """Electrons a photon."""
    exposure: float = 1.0
    """Exposure time, in units of the one that background and dark are stated for."""
    gradient: Range = (0.0, 0.2)
    """Peak-to-peak linear change over the frame, as a share of the background: elevation, stray light."""
    clutter_exponent: Range = (1.5, 3.0)
    """a of the power spectrum 1/f^a of natural scenes: 1.5 is grainy, 3 is soft."""
    clutter_rms: Range = (0.005, 0.03)
    """Rms of the clutter over the frame, as a share of the background."""
    cloud_share: float = 0.3
    """Share of frames with clouds: their crisp edges look like targets to a high-pass filter."""
    cloud_contrast: Range = (0.02, 0.15)
    """Radiance of thick cloud above the sky, as a share of the background."""
    horizon_share: float = 0.1
    """Share of frames with a skyline: a strong edge, and rougher ground below it."""
    horizon_contrast: Range = (0.05, 0.3)
    """Radiance of the ground above the sky, as a share of the background."""
    ground_roughness: float = 3.0
    """Clutter of the ground in units of the sky's."""

    # The camera
    read_noise: float = 8.0
    """Rms of the readout, e-: 2 (cooled) to 20."""
    dark: float = 50.0
    """Dark current, e- a pixel and unit of exposure: adds shot noise only."""
    prnu: float = 0.003
    """Rms of the pixels' relative gain (photo response non-uniformity): what flat-fielding leaves."""
    row_noise: float = 1.5
    """Rms of an offset common to a row, e-: readout electronics."""
    column_noise: float = 2.0
    """Rms of an offset common to a column, e-: one amplifier a column leaves stripes."""
    hot_share: Range = (1e-4, 5e-4)
    """Share of hot pixels: the honest hard negative, one pixel where a target is two or three."""
    hot_level: float = 400.0
    """Mean extra dark signal of a hot pixel (exponential), e- a unit of exposure."""
    dead_share: float = 5e-5
    """Share of pixels without response."""
    cosmic_rate: float = 0.3
    """Mean number of cosmic-ray streaks a frame (Poisson): sharp, not blurred by the optics."""
    cosmic_level: float = 300.0
    """Mean charge of a streak, e- a pixel of its path."""
    gain: float = 1.0
    """Electrons an ADU."""
    bias: float = 200.0
    """Offset in ADU, so that noise around zero is not clipped."""
    bits: int = 14
    """Depth of the converter, 8 to 16: values stop at 2^bits - 1."""

    def __post_init__(self) -> None:
        for name in _PAIRS:
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise UserError(f"sky.{name}: ({low}, {high}) is no range; give 0 <= low <= high")
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"sky.{name}: {getattr(self, name)} is no share; give a number from 0 to 1")
        for name in ("sigma", "background"):
            if not getattr(self, name)[0] > 0:
                raise UserError(f"sky.{name}: {getattr(self, name)[0]} must be positive")
        for name in ("exposure", "gain", "quantum_efficiency"):
            if not getattr(self, name) > 0:
                raise UserError(f"sky.{name}: {getattr(self, name)} must be positive")
        self._check_choices()

    def _check_choices(self) -> None:
        limits = {"height": (16, 1 << 15), "width": (16, 1 << 15), "bits": (8, 16), "moffat_beta": (1.5, 20.0)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(f"sky.{name}: {getattr(self, name)} is outside {low} to {high}")
        known = ("gaussian", "moffat", "airy")
        if self.psf not in known:
            raise UserError(f"sky.psf: `{self.psf}` is unknown{did_you_mean(self.psf, known)} ({', '.join(known)})")
        if self.ellipticity[1] > 0.9:
            raise UserError(f"sky.ellipticity: {self.ellipticity[1]} is above 0.9, narrower than the pixels can show")
        if self.hot_share[1] > 1:
            raise UserError(f"sky.hot_share: {self.hot_share[1]} is no share; give a number from 0 to 1")
        if not 0 <= 2 * self.border < min(self.height, self.width):
            raise UserError(f"sky.border: {self.border} leaves no room in {self.width}x{self.height}; make it smaller")
        noise = ("read_noise", "dark", "prnu", "row_noise", "column_noise", "hot_level", "cosmic_rate")
        for name in (*noise, "cosmic_level", "bias", "min_separation", "demand_snr", "ground_roughness"):
            if not getattr(self, name) >= 0:
                raise UserError(f"sky.{name}: {getattr(self, name)} must not be negative")


_NOTHING: Range = (0.0, 0.0)

_PRESETS: dict[str, Sky] = {
    "white": Sky(
        empty_share=0.2, snr=(3.0, 12.0), border=8.0, sigma=(1.0, 1.0), background=(4000.0, 4000.0),
        quantum_efficiency=1.0, gradient=_NOTHING, clutter_rms=_NOTHING, cloud_share=0.0, horizon_share=0.0,
        read_noise=5.0, dark=0.0, prnu=0.0, row_noise=0.0, column_noise=0.0, hot_share=_NOTHING, dead_share=0.0,
        cosmic_rate=0.0, bits=16,
    ),
    "easy": Sky(
        snr=(6.0, 15.0), background=(2000.0, 5000.0), gradient=(0.0, 0.1), clutter_exponent=(2.5, 3.0),
        clutter_rms=(0.002, 0.01), cloud_share=0.0, horizon_share=0.0, hot_share=(0.0, 5e-5), cosmic_rate=0.0,
    ),
    "default": Sky(),
    "hard": Sky(
        empty_share=0.4, snr=(2.0, 10.0), psf="moffat", ellipticity=(0.0, 0.25), motion_blur=(0.0, 2.0),
        background=(700.0, 7000.0), gradient=(0.0, 0.4), clutter_rms=(0.02, 0.05), cloud_share=0.6,
        cloud_contrast=(0.05, 0.3), horizon_share=0.3, horizon_contrast=(0.1, 0.5), read_noise=15.0, prnu=0.006,
        row_noise=4.0, column_noise=5.0, hot_share=(3e-4, 1e-3), dead_share=2e-4, cosmic_rate=1.0,
    ),
}  # fmt: skip

PRESETS: tuple[str, ...] = tuple(_PRESETS)


def preset(name: str, **changes: Any) -> Sky:
    """Return the preset ``name`` (one of ``PRESETS``) with ``changes`` to its fields.

    Raises ``UserError`` for an unknown preset or field, naming its neighbour, and for a value that no frame can have.
    """
    if name not in _PRESETS:
        raise UserError(f"unknown sky preset `{name}`{did_you_mean(name, PRESETS)} (known: {', '.join(PRESETS)})")
    known = [f.name for f in fields(Sky)]
    for key in changes:
        if key not in known:
            raise UserError(
                f"unknown sky setting `{key}`{did_you_mean(key, known) or ': see boresight.data.skyfield.Sky'}"
            )
    return replace(_PRESETS[name], **changes)
