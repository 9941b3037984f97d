"""Parts of the engine on small arrays worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrmt3.engine import adafactor, gin_utils, losses, optimizers, partitioning, utils
from mrmt3.errors import UserError
from mrmt3.training import metrics_window, schedules


class TestLosses:
  def test_is_cross_entropy_without_smoothing(self):
    logits = jnp.array([[1.0, 2.0, 0.5]])
    loss, z_term = losses.cross_entropy_with_logits(logits, jnp.array([1]))
    np.testing.assert_allclose(loss, -jax.nn.log_softmax(logits)[:, 1], rtol=1e-6)
    assert z_term[0] == 0

  def test_z_loss_is_squared_log_normaliser(self):
    logits = jnp.array([[1.0, 2.0, 0.5]])
    plain, _ = losses.cross_entropy_with_logits(logits, jnp.array([1]))
    loss, z_term = losses.cross_entropy_with_logits(logits, jnp.array([1]), z_loss=0.1)
    np.testing.assert_allclose(z_term, 0.1 * jax.nn.logsumexp(logits, axis=-1) ** 2, rtol=1e-6)
    np.testing.assert_allclose(loss, plain + z_term, rtol=1e-6)

  def test_smoothing_equals_divergence_from_the_smoothed_target(self):
    rng = np.random.default_rng(0)
    logits, labels, s = rng.normal(size=(5, 7)), rng.integers(0, 7, 5), 0.2
    target = np.full((5, 7), s / 6)
    target[np.arange(5), labels] = 1 - s
    expected = (target * (np.log(target) - np.array(jax.nn.log_softmax(logits)))).sum(-1)
    loss, _ = losses.cross_entropy_with_logits(jnp.array(logits), jnp.array(labels), label_smoothing=s)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


class TestSchedules:
  def test_mr_mt3(self):
    rate = schedules.warmup_cosine()
    assert rate(0) == 0
    np.testing.assert_allclose(rate(32_250), 1e-4, rtol=1e-6)
    np.testing.assert_allclose(rate(64_500), 2e-4, rtol=1e-6)
    np.testing.assert_allclose(rate((64_500 + 1_031_200) // 2), 1e-4, rtol=1e-4)
    np.testing.assert_allclose(rate(1_031_200), 2e-8, rtol=1e-5)
    np.testing.assert_allclose(rate(2_000_000), 2e-8, rtol=1e-5)

  def test_mt3_is_constant_from_step_0(self):
    rate = utils.create_learning_rate_scheduler(factors='constant', base_learning_rate=1e-3)
    np.testing.assert_allclose([rate(0), rate(10**6)], 1e-3, rtol=1e-6)

  def test_t5_default(self):
    rate = utils.create_learning_rate_scheduler()
    np.testing.assert_allclose(rate(500), 0.5 * 0.5 / np.sqrt(1000), rtol=1e-6)
    np.testing.assert_allclose(rate(4000), 0.5 / np.sqrt(4000), rtol=1e-6)

  def test_unknown_factor_is_named(self):
    with pytest.raises(UserError, match="no factor 'constnt'"):
      utils.create_learning_rate_scheduler(factors='constnt * linear_warmup')


class TestOptimizers:
  def test_adafactor_first_step_by_hand(self):
    """At step 0 the second moment is g^2 alone, so an unfactored update is the sign, scaled by the parameter's RMS."""
    definition = adafactor.Adafactor()
    params, gradients = jnp.array([3.0, -4.0]), jnp.array([0.5, -0.1])
    new, _ = definition.update(gradients, definition.init(params), params, 1e-2)
    np.testing.assert_allclose(new, params - 1e-2 * np.sqrt(12.5) * np.sign(gradients), rtol=1e-5)

  def test_adafactor_factors_large_kernels(self):
    definition = adafactor.Adafactor()
    state = definition.init({'kernel': jnp.ones((256, 128)), 'small': jnp.ones((256, 127))})
    sizes = sorted(x.size for x in jax.tree.leaves(state) if x.size > 1)
    assert sizes == [128, 256, 256 * 127]

  def test_own_rate_beats_the_trainers(self):
    params = jnp.array([1.0])
    definition = optimizers.sgd(0.5)
    new, _ = definition.update(jnp.array([1.0]), definition.init(params), params, 100.0)
    np.testing.assert_allclose(new, [0.5])

  def test_adamw_is_optax_with_its_schedule(self):
    definition = optimizers.adamw(schedules.warmup_cosine(1e-2, 2, 10), weight_decay=0.0)
    params = jnp.array([1.0])
    state = definition.init(params)
    for _ in range(2):
      params, state = definition.update(jnp.array([3.0]), state, params, 0.0)
    # Rate 0 at step 0, then 5e-3 in the gradient's direction.
    np.testing.assert_allclose(params, [1 - 5e-3], rtol=1e-4)

  def test_unsupported_argument_is_named(self):
    with pytest.raises(UserError, match='weight_decay_rate'):
      adafactor.Adafactor(weight_decay_rate=0.1)


class TestConfigs:
  def test_unsupported_values_are_named(self):
    with pytest.raises(UserError, match='save_dataset'):
      utils.SaveCheckpointConfig(save_dataset=True)
    with pytest.raises(UserError, match='pack'):
      utils.DatasetConfig('x', {}, 'train', 1, False, 0, pack=True)
    with pytest.raises(UserError, match='num_partitions is 3'):
      partitioning.PjitPartitioner(num_partitions=3)

  @pytest.mark.parametrize('step, due', [(2, False), (3, True), (4, False), (5, True), (7, True)])
  def test_when_checkpoints_are_due(self, step, due):
    assert utils.SaveCheckpointConfig(period=3, checkpoint_steps=[5]).is_due(step, total_steps=7) == due


class TestFlags:
  def test_bindings(self):
    argv = [
      '--gin_file=a.gin',
      '--gin.MODEL_DIR=2024_run',
      "--gin.NAME='y'",
      '--gin.train.total_steps=5',
      '--gin.C',
      'None',
    ]
    flags = gin_utils.parse_flags(argv, 'train', '')
    assert flags.gin_file == ['a.gin']
    assert flags.gin_bindings == ["MODEL_DIR = '2024_run'", "NAME = 'y'", 'train.total_steps = 5', 'C = None']

  @pytest.mark.parametrize('value', ['@utils.f()', '%MACRO', '-1e-3', '.5', "['a']", '(1, 2)', '{"a": 1}', 'True'])
  def test_values_stay_values(self, value):
    assert gin_utils.parse_flags(['--gin_file=a', f'--gin.X={value}'], 'train', '').gin_bindings == [f'X = {value}']

  def test_no_gin_file(self):
    with pytest.raises(UserError, match='--gin_file'):
      gin_utils.parse_flags([], 'train', '')


class TestMetricsWindow:
  def numbers(self, loss=1.0):
    names = ('loss', 'z_loss', 'correct', 'tokens', 'gradient_norm', 'learning_rate')
    return {
      **{name: jnp.float32(1.0) for name in names},
      'loss': jnp.float32(loss),
      'example_loss': jnp.array([loss, 1.0]),
    }

  def test_speed_and_share_of_waiting(self, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(metrics_window.time, 'perf_counter', lambda: clock[0])
    log = metrics_window.MetricsWindow(batch_size=2, step=0)
    for _ in range(3):
      log.add(self.numbers(), None)
    clock[0] = 104.0
    summary = log.report(waited=1.0)  # 6 examples in 4 s, one of which went by waiting
    assert summary['examples_per_second'] == 1.5 and summary['input_wait_share'] == 0.25
    log.add(self.numbers(), None)
    clock[0] = 106.0
    since = log.pause()
    clock[0] = 116.0  # an evaluation, which does not count
    log.resume(since)
    summary = log.report(waited=2.0)
    assert summary['examples_per_second'] == 1.0 and summary['input_wait_share'] == 0.5

  def test_examples_are_named_by_piece_and_frame(self):
    log = metrics_window.MetricsWindow(batch_size=2, step=4, piece_names=lambda: ['a', 'b'])
    log.add(self.numbers(float('nan')), np.array([[1, 256], [0, 0]], np.int32))
    with pytest.raises(UserError, match='the loss is nan at step 5, examples b from frame 256; check'):
      log.check()

  def test_examples_without_a_name_are_counted(self):
    log = metrics_window.MetricsWindow(batch_size=2, step=4)
    log.add(self.numbers(float('nan')), np.full((2, 2), -1, np.int32))
    with pytest.raises(UserError, match=r'examples \(counted in the order of training, from 0\) 8; check'):
      log.check()
