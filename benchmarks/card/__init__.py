"""One script for a GPU that is lent for some minutes: are losses and gradients right there, and how fast are the steps?

Usage: `python -m benchmarks.card [--json PATH] [--peak TFLOPS] [--only PATTERN]`. It needs neither data nor weights: images are
random, and frozen networks have their real size and random weights.

Part 1 compares the GPU with the CPU: loss and gradients of every autoencoder, regularizer, discriminator, transformer, process
and alignment that recipes know, at small size, in float32, with TF32 convolutions and in bfloat16; then the Triton kernels with
the plain operations, and nvJPEG with Pillow. Part 2 measures steps at full size: time, share of the peak of matrix products,
memory, and beside them what smtool.cost predicts.

Each row has a time limit and is written to the JSON file when it is known, so that a run that is cut keeps what it has.
`--tiny --device cpu` runs the same code at sizes for a test. Exit code 1: something differs by more than its bound.
"""
