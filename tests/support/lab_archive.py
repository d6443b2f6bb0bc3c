"""A Debian archive of a few packages in a folder, for the machine's real apt to use."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from support import lab_files


@dataclass
class Archive:
    """The archive in *folder*; its packages are made with dpkg-deb."""

    folder: Path

    @property
    def source(self) -> str:
        """Its entry in a sources.list; there is no key, so it says itself that it is trusted."""
        return f"deb [trusted=yes] file:{self.folder} bookworm main\n"

    def package(self, name: str, version: str, files: dict[str, bytes], depends: str = "") -> Path:
        """Make a package; its place in the pool."""
        root = self.folder / "build" / f"{name}_{version}"
        for inside, content in files.items():
            lab_files.write(root / inside, content)
        control = (
            f"Package: {name}\nVersion: {version}\nArchitecture: i386\n"
            "Maintainer: Nobody <nobody@example.org>\nDescription: a test\n"
        )
        if depends:
            control += f"Depends: {depends}\n"
        lab_files.write(root / "DEBIAN" / "control", control.encode())
        pool = self.folder / "pool"
        pool.mkdir(exist_ok=True)
        path = pool / f"{name}_{version}_i386.deb"
        subprocess.run(
            ["dpkg-deb", "-Znone", "--root-owner-group", "--build", str(root), str(path)],
            check=True,
            capture_output=True,
        )
        return path

    def kernel(self, release: str, version: str, flavour: str = "686") -> Path:
        """A kernel's package, and the one that stands for the newest of them."""
        image = f"linux-image-{release}"
        self.package(f"linux-image-{flavour}", version, {}, f"{image} (= {version})")
        return self.package(
            image,
            version,
            {
                f"boot/vmlinuz-{release}": lab_files.bzimage(release=release),
                f"boot/config-{release}": b"CONFIG_HIGHMEM4G=y\n",
                f"boot/System.map-{release}": b"c1000000 T _text\n",
                f"lib/modules/{release}/kernel/drivers/virtio/virtio.ko": lab_files.module(),
                f"lib/modules/{release}/modules.builtin": b"kernel/fs/ext4/ext4.ko\n",
                f"usr/share/doc/{image}/copyright": b"nothing\n",
            },
        )

    def index(self) -> None:
        """Write the lists of what is in the pool."""
        place = self.folder / "dists" / "bookworm" / "main" / "binary-i386"
        place.mkdir(parents=True, exist_ok=True)
        stanzas = []
        for path in sorted((self.folder / "pool").glob("*.deb")):
            control = subprocess.run(
                ["dpkg-deb", "--field", str(path)], check=True, capture_output=True, text=True
            ).stdout
            content = path.read_bytes()
            stanzas.append(
                f"{control}Filename: pool/{path.name}\nSize: {len(content)}\n"
                f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
            )
        text = "\n".join(stanzas)
        (place / "Packages").write_text(text)
        listed = f" {hashlib.sha256(text.encode()).hexdigest()} {len(text)} "
        (self.folder / "dists" / "bookworm" / "Release").write_text(
            "Suite: bookworm\nCodename: bookworm\nArchitectures: i386\nComponents: main\n"
            "Date: Thu, 01 Jan 2026 00:00:00 UTC\n"
            f"SHA256:\n{listed}main/binary-i386/Packages\n"
        )
