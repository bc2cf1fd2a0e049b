"""What `smtool inspect --cost` finds: a typed result, printed as a table or as JSON."""

from pydantic import BaseModel, ConfigDict, Field


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TurnCost(_Result):
    """One turn of a player over the global batch: loss, gradients and update."""

    player: str = Field(description="autoencoder, discriminator or transformer")
    phase: str = Field(description="when it has this cost; empty: always")
    number: int = Field(description="turns of this kind in the whole recipe")
    flops: float = Field(description="FLOPs over the global batch, 2 for a multiplication with an addition")
    flops_by_format: dict[str, float] = Field(description="the same by number format")
    bytes: float = Field(description="bytes that kernels read and write, over all GPUs")
    kernels: int = Field(description="kernels started on each GPU")
    activation_bytes: int = Field(description="largest memory of activations and temporary tensors on a GPU")
    sent_bytes: float = Field(description="bytes that each GPU sends to others")
    floor_seconds: float = Field(description="no kernel order or compiler is faster without doing less: peaks of the datasheet")
    seconds: float = Field(description="predicted, at the stated efficiencies")
    peak_share: float = Field(description="predicted FLOP/s as a share of the datasheet's peak of dense bf16 products")


class MemoryCost(_Result):
    """Bytes on each GPU."""

    parameters: float = Field(description="weights of all players, float32")
    gradients: float
    optimizer: float = Field(description="both moments of AdamW")
    average: float = Field(description="the moving average of the weights")
    frozen: float = Field(description="weights of networks that do not train, such as a teacher or LPIPS")
    gathered: float = Field(description="with sharding: the blocks that are whole at a time")
    activations: float = Field(description="the largest of all turns")
    total: float
    available: float = Field(description="memory of the GPU")


class DataCost(_Result):
    """What a data set of this many images takes at the recipe's size."""

    images: int
    image_bytes: float = Field(description="of one prepared image in its shard")
    image_format: str
    prepare_core_hours: float = Field(description="to decode, resize and write all images")
    read_core_hours: float = Field(description="to read and decode all images once")
    readers: float = Field(description="cores that read images as fast as the predicted training takes them")
    latent_bytes: float | None = Field(description="of one image in a cache of latents; None without latents")
    encode_gpu_hours: float | None = Field(description="to encode all images once; None if the autoencoder is not known")


class Cost(_Result):
    """The cost of a recipe on some GPUs, predicted without running it."""

    recipe: str
    gpu: str
    gpus: int
    sharded: bool = Field(description="whether parameters are sharded over the GPUs")
    batch: int = Field(description="images per step, over all GPUs")
    samples: int = Field(description="images of one micro-batch on one GPU")
    steps: int
    parameters: dict[str, int] = Field(description="by player")
    frozen_parameters: int
    turns: tuple[TurnCost, ...]
    memory: MemoryCost
    images_per_second: float = Field(description="over all GPUs and all steps, predicted")
    hours: float = Field(description="of the whole recipe, without validation and saving, predicted")
    gpu_hours: float
    floor_gpu_hours: float
    data: DataCost
    assumptions: tuple[str, ...]

    @property
    def flops(self) -> float:
        """FLOPs of the whole recipe."""
        return sum(turn.number * turn.flops for turn in self.turns)
