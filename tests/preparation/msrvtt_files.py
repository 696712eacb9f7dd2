"""Small sources in MSR-VTT's formats: the challenge's JSON, 1k-A's CSV, features, clips."""

import json

import numpy as np

FEATURES = 6
SPLITS = ("train", "train", "train", "train", "validate", "test", "test")
FRAMES = (3, 30, 5, 1, 4, 50, 2)
MOST = 4


def captions_of(number):
    return [f"a film {number} of {c}" for c in range(1 + number % 3)]


def challenge(path, numbers=range(7), change=None):
    """``videodatainfo.json`` of videos ``video{n}``; sentences go round the videos."""
    said = [(n, text) for c in range(3) for n in numbers for text in captions_of(n)[c : c + 1]]
    found = {
        "info": {"contributor": "someone"},
        "videos": [
            {"video_id": f"video{n}", "split": SPLITS[n], "category": 3, "url": "", "id": n}
            for n in numbers
        ],
        "sentences": [
            {"caption": f" {text}\n", "video_id": f"video{n}", "sen_id": i}
            for i, (n, text) in enumerate(said)
        ],
    }
    if change:
        change(found)
    path.write_text(json.dumps(found))
    return path


def jsfusion(path, numbers=(5, 2), rows=None):
    """``MSRVTT_JSFUSION_test.csv``."""
    lines = [f"ret{k},msr{n},video{n},the one caption of {n}" for k, n in enumerate(numbers)]
    path.write_text("\n".join(["key,vid_key,video_id,sentence", *(rows or lines)]) + "\n")
    return path


def frames_of(number):
    """Features [F, D]: frame f of video n is 100 n + f everywhere."""
    count = FRAMES[number]
    rows = np.arange(count, dtype=np.float32)[:, None] + np.float32(100 * number)
    return np.broadcast_to(rows, (count, FEATURES)).copy()


def kept(number, most=MOST):
    """What is kept of `frames_of`, in the field's words: round(linspace(0, F - 1, N))."""
    values = frames_of(number)
    if len(values) <= most:
        return values
    return values[[round(i * (len(values) - 1) / (most - 1)) for i in range(most)]]


def npy_folder(root, numbers=range(7)):
    root.mkdir()
    for n in numbers:
        np.save(root / f"video{n}.npy", frames_of(n))
    return root


def write_clip(path, count, size=(32, 24), rate=10):
    """A clip of ``count`` frames: frame f is grey of 8 f, left of the middle, red right of it."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"qscale": "1"}
        for number in range(count):
            picture = np.full((size[1], size[0], 3), 8 * number, np.uint8)
            picture[:, size[0] // 2 :] = (255, 0, 0)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
