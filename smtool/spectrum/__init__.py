"""Spectra of images and latents: pure functions of tensors, torch only."""

from smtool.spectrum.dct import dct2 as dct2
from smtool.spectrum.dct import dct_matrix as dct_matrix
from smtool.spectrum.dct import idct2 as idct2
from smtool.spectrum.esm import esm_loss as esm_loss
from smtool.spectrum.esm import matched_gain as matched_gain
from smtool.spectrum.esm import reference_divergence as reference_divergence
from smtool.spectrum.esm import spectral_distribution as spectral_distribution
from smtool.spectrum.estimators import PHYSICAL as PHYSICAL
from smtool.spectrum.estimators import REFERENCE as REFERENCE
from smtool.spectrum.estimators import Estimator as Estimator
from smtool.spectrum.lowpass import block_low_pass as block_low_pass
from smtool.spectrum.lowpass import fit_cutoff as fit_cutoff
from smtool.spectrum.lowpass import fitted_low_pass as fitted_low_pass
from smtool.spectrum.lowpass import low_pass_mask as low_pass_mask
from smtool.spectrum.psd import Spectrum as Spectrum
from smtool.spectrum.psd import radial_power as radial_power
from smtool.spectrum.psd import ring_frequency as ring_frequency
from smtool.spectrum.psd import spectrum_of as spectrum_of
