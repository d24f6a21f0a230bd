"""An avatar from Python: the shared library through ctypes, nothing else.

usage: python3 generate.py MODEL CLASS SEED OUT.png [--library libdiscon.so]
"""

import argparse
import ctypes as c
import struct
import zlib


class Request(c.Structure):
    _fields_ = [("size", c.c_size_t), ("count", c.c_size_t), ("classes", c.POINTER(c.c_uint32)),
                ("seeds", c.POINTER(c.c_uint64)), ("settings", c.c_void_p)]


class Image(c.Structure):
    _fields_ = [("size", c.c_size_t), ("width", c.c_size_t), ("height", c.c_size_t), ("pixels", c.c_void_p),
                ("stride", c.c_size_t), ("format", c.c_uint32), ("reserved", c.c_uint32)]


class Discon:
    """The calls that this example needs; each failure is an exception with the library's words."""

    def __init__(self, path):
        self.library = c.CDLL(path)
        self.library.discon_status_name.restype = c.c_char_p
        self.library.discon_last_error.restype = c.c_size_t
        self.library.discon_last_error.argtypes = [c.c_char_p, c.c_size_t]

    def __getattr__(self, name):
        function = getattr(self.library, "discon_" + name)

        def call(*arguments):
            status = function(*arguments)
            if status:
                text = c.create_string_buffer(2049)
                self.library.discon_last_error(text, len(text))
                raise RuntimeError(f"{self.library.discon_status_name(status).decode()}: {text.value.decode()}")

        return call


def generate(discon, folder, class_name, seed):
    """Width, height and RGB bytes of one picture."""
    model, device, images = c.c_void_p(), c.c_void_p(), c.c_void_p()
    try:
        discon.model_open(folder.encode(), None, c.byref(model))
        discon.device_cpu(None, c.byref(device))
        number = c.c_uint32()
        discon.model_class(model, class_name.encode(), c.byref(number))
        request = Request()
        discon.request_init(c.byref(request), c.c_size_t(c.sizeof(request)))
        request.count = 1
        request.classes = c.pointer(number)
        request.seeds = c.pointer(c.c_uint64(seed))
        discon.generate(model, device, c.byref(request), c.byref(images))
        image = Image()
        discon.image_init(c.byref(image), c.c_size_t(c.sizeof(image)))
        discon.images_get(images, c.c_size_t(0), c.byref(image))
        return image.width, image.height, c.string_at(image.pixels, image.stride * image.height)
    finally:
        discon.images_free(images)
        discon.device_free(device)
        discon.model_free(model)


def png(width, height, rgb):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    lines = b"".join(b"\0" + rgb[y * width * 3 : (y + 1) * width * 3] for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def main():
    parser = argparse.ArgumentParser(description="An avatar from Python.")
    parser.add_argument("model")
    parser.add_argument("class_name", metavar="class")
    parser.add_argument("seed", type=int)
    parser.add_argument("out")
    parser.add_argument("--library", default="libdiscon.so")
    options = parser.parse_args()
    picture = generate(Discon(options.library), options.model, options.class_name, options.seed)
    with open(options.out, "wb") as file:
        file.write(png(*picture))


if __name__ == "__main__":
    main()
