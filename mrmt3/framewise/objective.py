"""The training objective of frame-level labels, alone or added to the loss of the tokens."""

import dataclasses

from mrmt3.engine.names import is_own_engine, t5x_module
from mrmt3.errors import UserError

FRAME_LOSSES = ('auxiliary', 'alone')


@dataclasses.dataclass(frozen=True)
class FrameObjective:
  """Trains the frame heads of a network on labels read from its target tokens.

  On a small computer an encoder learns from frame-level labels many times sooner than through a decoder.

  Attributes:
    loss: 'auxiliary': added to the tokens' loss; 'alone': instead of it, and the decoder rests.
    weight: of the frame loss, summed over frames and outputs, in relation to the tokens' summed loss.

  Raises:
    UserError: a value is out of range.
  """

  loss: str = 'auxiliary'
  weight: float = 1.0

  def __post_init__(self):
    if self.loss not in FRAME_LOSSES:
      raise UserError(f'FrameObjective.loss is {self.loss!r}; it is one of {", ".join(FRAME_LOSSES)}')
    if isinstance(self.weight, bool) or not isinstance(self.weight, (int, float)) or self.weight < 0:
      raise UserError(f'FrameObjective.weight is {self.weight!r}; it is a number of at least 0')

  def module_options(self, spec) -> dict:
    """Return what `NetworkConfig.module` needs in training. Raises UserError for a network without frame heads."""
    if not spec.network.has_frame_heads:
      raise UserError(
        f'FrameObjective: a network of kind {spec.network.kind!r} has no frame heads; choose a network with frame heads'
      )
    return {'with_frame_head': True}

  def loss_fn(self, model, token_loss, params, batch, dropout_rng):
    """Return (loss, sums), as `EncoderDecoderModel.loss_fn` does.

    Args:
      model: the model, with `spec`, `module`, `call_arguments` and `call_keywords`.
      token_loss: function of logits that returns the tokens' (loss, sums).
      params: parameters.
      batch: model features.
      dropout_rng: key for dropout, or None: no dropout.
    """
    from mrmt3.framewise import losses

    labels = losses.frame_labels(batch['decoder_target_tokens'], model.spec)
    logits, frame_logits = self._logits(model, params, batch, dropout_rng, labels[1])
    loss, sums = token_loss(logits)
    return self._combine(model, batch, (*frame_logits, *labels), loss, sums)

  def _logits(self, model, params, batch, dropout_rng, events):
    """Return (token logits, all 0 where they do not count; frame logits) of one pass of the network."""
    import jax.numpy as jnp

    inputs, decoder_inputs, targets = model.call_arguments(batch)
    drop = dropout_rng is not None

    def both(network):
      encoded, *frame_logits = network.encode_with_frame_logits(
        inputs, events.frames, events.kinds, drop, **model.call_keywords(batch)
      )
      if self.loss == 'alone':
        # 0 for every token; written so that the compiler does not compute losses of constants for minutes.
        zeros = jnp.broadcast_to(0.0 * encoded[0, 0, 0], (*targets.shape, model.spec.network.vocab_size))
        return zeros, frame_logits
      return network.decode(encoded, None, decoder_inputs, targets, enable_dropout=drop), frame_logits

    rngs = {'dropout': dropout_rng} if drop else {}
    return model.module.apply({'params': params}, method=both, rngs=rngs)

  def _combine(self, model, batch, frames, loss, sums):
    """Return the tokens' loss and sums with the frame loss added, or in their place.

    An engine divides the loss by the number of tokens, or what else the model asks for; the frame loss is treated
    alike.
    """
    from mrmt3.framewise import losses

    example_loss, alone = losses.frame_loss(*frames), self.loss == 'alone'
    total = example_loss.sum()
    if is_own_engine():
      if alone:
        # To a decoder that rests all tokens are equally likely, which would count as right.
        sums = {name: x for name, x in sums.items() if not name.startswith(('correct/', 'tokens/'))}
        sums |= {'correct': 0.0 * total, 'loss': total, t5x_module('models').EXAMPLE_LOSS: example_loss}
      sums = {**sums, 'frame_loss': total}
      for name, (right, count) in losses.event_counts(*frames).items():
        sums |= {f'correct/{name}': right, f'tokens/{name}': count}
    else:
      factor, _ = t5x_module('losses').get_loss_normalizing_factor_and_weights(model.loss_normalizing_factor, batch)
      total = total if factor is None else total / factor
      sums = {**sums, 'frame_loss': t5x_module('metrics').AveragePerStep(total=total)}
    return (total if alone else loss + self.weight * total), sums
