"""What every figure of the report shows, what to look for in it, and what would be good."""

from dataclasses import dataclass

from matplotlib.figure import Figure

from smtool.report.html import Page


@dataclass(frozen=True)
class Words:
    alt: str
    caption: str


FIGURES = {
    "physical": Words(
        "Power spectra of images, their flattened target and latents; below, latents over target in dB; right, a scale of"
        " delta.",
        "Latents (colours) should lie on the dashed target: the images' own spectrum (black), tilted. Below: how far they"
        " are from it; flat at 0 dB is perfect, a slope means too much or too little flattening, a bump is a band of its "
        "own. Right: delta, how many powers of frequency flatter than the images; good is inside the shaded zone, with a "
        "bar that does not leave it. Dash-dotted: the images flattened by the delta that fits; where latents leave that "
        "line, no delta describes them.",
    ),
    "images": Words(
        "Power spectrum of the images with its fitted power law.",
        "Power of natural photographs falls with a slope of about 2. A fall at the right end comes from resampling or "
        "JPEG.",
    ),
    "readings": Words(
        "Power spectra of each autoencoder's latents: sample and mean of the posterior, normalized and raw.",
        "The same latents read in other ways; the headline is the sampled, normalized one. Dashed: means of the "
        "posterior. Where sampling lifts the right end, posterior noise drowns high frequencies; where raw and normalized"
        " differ in slope, a few channels are louder than the rest. Good: all on one slope.",
    ),
    "channels": Words(
        "Power spectra of single channels, dashed, and of their mean.",
        "Single normalized channels (dashed) around their mean. Good: a narrow bundle. A channel far from it carries a "
        "band of its own, and the mean's delta speaks for it poorly.",
    ),
    "reference": Words(
        "Shares of log1p power in 16 bins of images, flattened target, latents and published curves; below, latents over "
        "target.",
        "The recipe of the paper's figures, with its published curves dotted where asked for (measured on other data: "
        "compare their shape with the target, not with a line of yours). Good: below, level at 1. These bins are neither "
        "octaves nor physical frequencies, and loud latents look flatter here: compare KL as released with KL at matched "
        "power.",
    ),
    "reference of images": Words(
        "Shares of log1p power of the images in 16 bins.",
        "The recipe of the paper's figures, with its published curves dotted where asked for (measured on other data).",
    ),
    "transfer": Words(
        "Heat maps: which image bands answer when one band of latent frequencies is stirred.",
        "Every row: one band of latent frequencies is stirred by a tenth of its strength; numbers say where the image "
        "answers, in % of the row. Good: 100 on the rising diagonal (absolute kappa 1). Right of it, the decoder adds "
        "higher frequencies; 'above' are those the latent cannot hold; left of it, it leaks downwards. The small matrix "
        "is the same response read at the same share of Nyquist: convolutions cannot stretch frequencies, so it sits at "
        "chance (kappa 0) for real decoders.",
    ),
    "low-pass": Words(
        "PSNR of low-passed latents' decodings against equally low-passed images, the gap to n = 0, and their kernel distance.",
        "Frequencies are removed from latent and image alike. Good: the solid line stays level, its gap near 0. Dashed is the "
        "control, the decoding of the whole latent against the same low-passed image: a solid line above it follows the "
        "removal for sure, one that falls far below is disturbed by it. Kernel distance, where drawn: low is good; it sees "
        "what PSNR forgives.",
    ),
    "lens": Words(
        "For each latent: the share of every band's power that a noisy latent still tells, and the loss floor, over "
        "diffusion time.",
        "Above: how much of each band can still be read at time t; it drowns where its line crosses one half. Good: lines"
        " spread over the whole width, low frequencies (dark, thick) last, so that a model decides from coarse to fine. "
        "Bundled lines: everything is decided at one time. Below: the squared error that remains for a perfect network "
        "predicting the velocity.",
    ),
    "crossing": Words(
        "Left: crossing time against frequency. Middle: cumulated share of the loss floor. Right: variance a sampler's "
        "last step returns.",
        "Left: when each frequency drowns; a flat line is white latents. Middle: how much of the unavoidable loss lies "
        "below a frequency; near the dashed line, most of the loss is spent on the finest detail. Right: below 1, the "
        "sampler's last step dims that band, whatever the network learns.",
    ),
    "direction": Words(
        "RMSC, LDS and CDS of the latents' tokens before and after two filters; right, directional energy by band.",
        "How much the directions of tokens vary in space (RMSC), how much more neighbours agree than distant tokens "
        "(LDS), and how fast likeness falls with distance (CDS); open symbols after the filters of iREPA and REPA-DoG. "
        "Larger means more spatial structure; no threshold is known. Right: energy outside the mean direction, by band.",
    ),
    "capacity": Words(
        "Bits of one image by latent band and by channel.",
        "Where the bits are, if latents were Gaussian and 1 % of their variance may be lost. Many bits in the highest "
        "bands are detail that a diffusion model must learn last; a channel without bits is dead or a copy.",
    ),
}


def add_figure(page: Page, name: str, figure: Figure) -> None:
    """With its words."""
    words = FIGURES[name]
    page.figure(figure, alt=words.alt, caption=words.caption)
