"""Published numbers of 22 public autoencoders on ImageNet 256, a benchmark for predictors of generation quality.

Source: the data of the iFID paper (arXiv 2603.05630, assets/ifid_data.py at commit 94f4314). A dash: not published.
sit_xl_fid: FID of a SiT-XL trained on the latents, without guidance. linear_probe: accuracy in percent. ifid_slerp: at 0.3.
date: yymm of publication, as a control: a predictor that correlates less than the date may only detect recent models.
"""

import math
from collections.abc import Mapping
from functools import lru_cache

GENERATION = "sit_xl_fid"

_TABLE = """
autoencoder sit_xl_fid  psnr rfid eq_loss se_loss  viv   lds   cds energy_above_0.05 vf_loss linear_probe ifid_bn ifid_slerp  date
SD-VAE           25.91 26.91  0.7    0.67    0.28  2.8 0.103 0.029             0.209    0.64         0.76   68.05      13.17 21.12
SD3-VAE          26.38 31.28 0.19    0.63    0.18 1.02 0.083 0.043             0.088    0.36         0.58    46.1       6.69 24.03
FLUX-VAE         34.06 32.87 0.18    0.69    0.17  1.1 0.122 0.035             0.134    0.41         0.91   70.52      24.35 24.08
DC-AE            26.68 24.55 0.84    0.89    0.35 1.36 0.116 0.027             0.245    0.35         2.23   45.12      11.63  24.1
SOFT-VQ          15.88 23.92 0.59    1.16    0.25    -     -  0.09             0.107    0.18         0.97   32.66      10.44 24.12
VA-VAE            8.57 27.71 0.28    1.28    0.29 0.57 0.295 0.094             0.047    0.08        17.25   25.01       6.29 25.01
VA-VAE-64        15.09 30.72 0.14    0.91     0.2  0.6  0.27  0.08             0.027    0.09        12.36   23.04       4.91 25.01
EQ-VAE           20.81 26.16 0.55    0.32    0.22 2.13  0.27 0.063              0.01    0.59         1.14   54.18      11.28 25.02
MAE-TOK           6.27 24.57 0.58    0.27    0.26    -     - 0.002             0.436    0.33         3.92   18.26       5.82 25.02
IN-VAE           25.65 28.92 0.26    0.78    0.23 1.22 0.105 0.038               0.2     0.4         3.02   47.35       8.62 25.04
REPAE-SDVAE      12.95  26.1 0.53    0.91    0.32  2.9 0.107 0.063             0.103    0.65         1.15   47.02      10.86 25.04
DE-TOK           11.97 25.24 0.54    0.67    0.19    -     - 0.011             0.244    0.46         4.96   21.05       2.59 25.07
QwenImg-VAE      23.62 32.19 1.51     0.6    0.15  0.9 0.122 0.049             0.053    0.36         0.83   36.22       3.78 25.08
RAE               4.25 19.21 0.62    0.41    0.39 0.78 0.112 0.045             0.112    0.01        73.58    6.05       1.21  25.1
SVG               7.65 23.35 0.68    0.78    0.32  0.5 0.097 0.036             0.043    0.06        45.83    7.17       2.39  25.1
FLUX2-VAE        10.18 34.33 0.15    0.78    0.17  1.3 0.098 0.043              0.24    0.34         6.62   19.13       2.75 25.11
SVG-T2I           5.63  18.9 1.14    0.74    0.44  0.5 0.097 0.036             0.041    0.06        45.99    5.12       1.73 25.12
DM-VAE            4.65 22.46 0.68    0.66    0.29    -     - 0.051             0.184    0.22        25.38   12.91       1.92 25.12
VTP-S             9.55 24.17 1.17    0.78    0.37 1.15 0.071 0.042             0.189    0.21         2.44    20.7       5.41 25.12
VTP-B             7.64 26.32 0.69    0.78     0.3 1.15 0.062 0.037               0.2    0.22         2.95   22.92       8.82 25.12
VTP-L             5.79 26.85 0.35     0.8    0.26 1.11  0.06 0.032             0.211    0.22          6.9   25.85       9.84 25.12
PAE-DINOv2        5.65 27.28 0.26    0.93    0.28 1.13 0.021 0.033             0.185     0.2        13.69   22.07       1.57 26.05
"""

COLUMNS: tuple[str, ...] = tuple(_TABLE.split("\n")[1].split()[1:])


@lru_cache(maxsize=1)
def published_autoencoders() -> Mapping[str, Mapping[str, float]]:
    """name -> column -> value; NaN where nothing was published."""
    lines = [line.split() for line in _TABLE.strip().splitlines()[1:]]
    return {name: dict(zip(COLUMNS, map(_number, values), strict=True)) for name, *values in lines}


def _number(text: str) -> float:
    return math.nan if text == "-" else float(text)
