"""Published files below the data folder: found, downloaded when asked for, checked by their MD5 sum."""

from pathlib import Path
from urllib.error import URLError

from torchvision.datasets.utils import check_integrity, download_url

from pruning.errors import Refusal


def checked_file(path: Path, md5: str) -> Path:
    """The file itself; ValueError where its MD5 sum is not the published one."""
    if not check_integrity(path, md5):
        raise Refusal(f"{path}: its MD5 sum is not {md5}, so it is damaged or another file; delete it and get it again")
    return path


def download(path: Path, urls: tuple[str, ...], md5: str) -> None:
    """Put the first of `urls` that answers at `path`, checked, in one step; ValueError where none does."""
    partial = path.with_name(path.name + ".part")  # a download that is cut short never has the name of a whole file
    failures = []
    for url in urls:
        try:
            download_url(url, path.parent, partial.name, md5)
        except (URLError, OSError, RuntimeError) as error:  # RuntimeError: the sum is wrong
            failures.append(f"{url} ({error})")
            continue
        partial.replace(path)
        return
    raise Refusal(f"{path.name} could not be downloaded from {', '.join(failures)}")
