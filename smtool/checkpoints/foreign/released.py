"""Files of the paper's released trainer (released-code.md#keys-of-diffusers)."""

from smtool.checkpoints.foreign.family import Family

RELEASED = Family(
    title="the paper's trainer",
    mark="encoder.encoder_blocks.0.blocks.0.conv1.weight",
    renames=(
        (r"^post_encoder_conv\.", "quant_conv."),
        (r"^pre_decoder_conv\.", "post_quant_conv."),
        (r"^encoder\.encoder_blocks\.(\d+)\.blocks\.", r"encoder.down_blocks.\1.resnets."),
        (r"^encoder\.encoder_blocks\.(\d+)\.downsample\.downsample_conv\.", r"encoder.down_blocks.\1.downsamplers.0.conv."),
        (r"^decoder\.decoder_blocks\.(\d+)\.blocks\.", r"decoder.up_blocks.\1.resnets."),
        (r"^decoder\.decoder_blocks\.(\d+)\.upsample\.upsample\.1\.", r"decoder.up_blocks.\1.upsamplers.0.conv."),
        (r"^(encoder|decoder)\.attn_block\.", r"\1.mid_block."),
        (r"^(encoder|decoder)\.out_norm\.", r"\1.conv_norm_out."),
        (r"\.attentions\.0\.groupnorm\.", ".attentions.0.group_norm."),
        (r"\.attentions\.0\.([qkv])_proj\.", r".attentions.0.to_\1."),
        (r"\.attentions\.0\.out_proj\.", ".attentions.0.to_out.0."),
        (r"\.identity_conv\.", ".conv_shortcut."),
    ),
    downsample_pad="symmetric",
)
