"""An attention kernel from outside: the attention of JAX itself."""

import jax

from bert_jax.models.attention import ATTENTION, Backend


def jax_attention(query, key, value, segment_ids, dropout_key, config):
    seen = segment_ids.query[:, None, :, None] == segment_ids.key[:, None, None, :]
    heads = (x.swapaxes(1, 2) for x in (query, key, value))
    return jax.nn.dot_product_attention(*heads, mask=seen)


ATTENTION["jax"] = Backend(jax_attention)
