"""Published checkpoints: their addresses, and where they are on this machine.

    <cache>/downloads/<name>/     published files, until they are converted
    <cache>/checkpoints/<name>/   the converted checkpoint, which `--checkpoint <name>` finds

Addresses, sizes and digests are as published by the authors; they were not tried when this was written.
"""

import dataclasses
import os
import urllib.parse
from pathlib import Path

from mrmt3.errors import UserError
from mrmt3.utils.user_cache import cache_root

_HUGGING_FACE = 'https://huggingface.co/gudgud1014/MR-MT3'
_MT3_PTH = 'https://media.githubusercontent.com/media/gudgud96/MR-MT3/master/pretrained/mt3.pth'
_GOOGLE = 'https://storage.googleapis.com'


@dataclasses.dataclass(frozen=True)
class RemoteFile:
  """A file to download.

  Attributes:
    name: its path relative to the download folder.
    url: its address.
    size: bytes; None if unknown.
    sha256: hexadecimal; None if unknown.
    md5: hexadecimal; None if unknown.
  """

  name: str
  url: str
  size: int | None = None
  sha256: str | None = None
  md5: str | None = None


@dataclasses.dataclass(frozen=True)
class Published:
  """A published checkpoint: one file, or all objects of a public bucket with a common prefix.

  Attributes:
    name: its name in `mrmt3 fetch`.
    title: description.
    file: the file; None for a bucket.
    listing: the bucket's address in Google's JSON API, `.../b/<bucket>/o`; empty for a file.
    prefix: common prefix of the bucket's objects.
  """

  name: str
  title: str
  file: RemoteFile | None = None
  listing: str = ''
  prefix: str = ''

  @property
  def address(self) -> str:
    """The address to show to users."""
    return (
      self.file.url if self.file else f'gs://{self.listing.split("/b/")[1].split("/")[0]}/{self.prefix.rstrip("/")}'
    )

  @property
  def source(self) -> Path:
    """The downloaded (or manually placed) file or folder, from which the checkpoint is converted."""
    folder = downloads_folder() / self.name
    return folder / self.file.name if self.file else folder

  def by_hand(self) -> str:
    """Return instructions for a machine without internet."""
    if self.file:
      return f'download {self.address} elsewhere and put it at {self.source}'
    return f'run `gsutil -m cp -r {self.address}/* {self.name}` elsewhere and put the files into {self.source}'


def _mr_mt3(name: str, title: str, setting: str) -> Published:
  file = f'exp_segmemV2_prev_{setting}.ckpt'
  return Published(name, title, RemoteFile(file, f'{_HUGGING_FACE}/resolve/main/{urllib.parse.quote(file)}'))


def _magenta(name: str, title: str) -> Published:
  return Published(name, title, listing=f'{_GOOGLE}/storage/v1/b/mt3/o', prefix=f'checkpoints/{name}/')


CHECKPOINTS = {
  published.name: published
  for published in (
    _magenta('mt3', 'MT3, multi-instrument (magenta)'),
    _magenta('ismir2021', 'piano with velocities, ISMIR 2021 (magenta)'),
    Published(
      'mt3-pytorch',
      'MT3, multi-instrument, as ported to PyTorch',
      RemoteFile('mt3.pth', _MT3_PTH, 183_672_643, 'b8a3807ed265059abd25ad7f68142c06c35e8f6144dcaa45bd55946a3745398f'),
    ),
    _mr_mt3('mr-mt3-0', 'MR-MT3 without memory: MT3 trained from scratch on Slakh2100', 'context=0'),
    _mr_mt3('mr-mt3-32', 'MR-MT3, L_agg 32', 'context=32'),
    _mr_mt3('mr-mt3-64', 'MR-MT3, L_agg 64', 'context=64'),
    _mr_mt3('mr-mt3-64-hop3', 'MR-MT3, L_agg 64, L_max_hop 3', 'context=64_prevaug_frame=3'),
    _mr_mt3('mr-mt3-64-hop8', 'MR-MT3, L_agg 64, L_max_hop 8', 'context=64_prevaug_frame=8'),
  )
}


def named(name: str) -> Published:
  """Return the published checkpoint of a name; UserError with all names if there is none."""
  if name not in CHECKPOINTS:
    raise UserError(f'no published checkpoint {name!r}; choose one of {", ".join(CHECKPOINTS)}')
  return CHECKPOINTS[name]


def _cache() -> Path:
  root = cache_root()
  if root is None:
    raise UserError('no home folder to store checkpoints in; set MRMT3_CACHE to a folder')
  return root


def downloads_folder() -> Path:
  """Return the folder of unconverted downloads; UserError if there is no cache folder."""
  return _cache() / 'downloads'


def checkpoint_folder(name: str) -> Path:
  """Return the folder of a converted checkpoint, which may not exist yet; UserError if there is no cache folder."""
  return _cache() / 'checkpoints' / name


def folder_of(path: str | os.PathLike) -> Path | None:
  """Return the cache folder of a published checkpoint if `path` is the name of one, else None."""
  return checkpoint_folder(str(path)) if str(path) in CHECKPOINTS else None
