import pytest

from mrmt3.event_codec import Codec, Event, EventRange


@pytest.fixture
def codec():
  return Codec(100, 100, [EventRange('pitch', 21, 108), EventRange('tie', 0, 0)])


def test_ids_are_contiguous_blocks_with_shifts_first(codec):
  assert codec.num_classes == 101 + 88 + 1
  assert codec.event_type_range('shift') == (0, 100)
  assert codec.event_type_range('pitch') == (101, 188)
  assert codec.event_type_range('tie') == (189, 189)
  assert codec.encode_event(Event('pitch', 60)) == 101 + 60 - 21
  assert (codec.max_shift_steps, codec.steps_per_second) == (100, 100)


def test_every_id_round_trips(codec):
  for index in range(codec.num_classes):
    assert codec.encode_event(codec.decode_event_index(index)) == index
    assert codec.is_shift_event_index(index) == (codec.decode_event_index(index).type == 'shift')


@pytest.mark.parametrize('index', [-1, 190])
def test_unknown_ids_are_refused(codec, index):
  with pytest.raises(ValueError, match='no event has the id'):
    codec.decode_event_index(index)


@pytest.mark.parametrize('event', [Event('pitch', 20), Event('pitch', 109), Event('tie', 1)])
def test_values_out_of_range_are_refused(codec, event):
  with pytest.raises(ValueError, match='is not within'):
    codec.encode_event(event)


def test_unknown_types_are_refused(codec):
  assert not codec.has_type('drum')
  with pytest.raises(ValueError, match='unknown event type'):
    codec.encode_event(Event('drum', 0))
  with pytest.raises(ValueError, match='unknown event type'):
    codec.event_type_range('drum')


def test_a_type_has_one_range_that_is_not_empty():
  with pytest.raises(ValueError, match='one range only'):
    Codec(10, 100, [EventRange('shift', 0, 3)])
  with pytest.raises(ValueError, match='must not be empty'):
    Codec(10, 100, [EventRange('pitch', 3, 2)])


def test_codecs_compare_by_content(codec):
  same = Codec(100, 100, [EventRange('pitch', 21, 108), EventRange('tie', 0, 0)])
  assert codec == same
  assert hash(codec) == hash(same)
  assert codec != Codec(100, 100, [EventRange('pitch', 21, 107), EventRange('tie', 0, 0)])
