"""A small folder of judgments in Flickr8k's layout, for tests."""

EXPERT, CROWD, CAPTIONS = (
    "ExpertAnnotations.txt",
    "CrowdFlowerAnnotations.txt",
    "Flickr8k.token.txt",
)


def write_judgments(root, images, captions, seed=0):
    """Judgments of ``images`` with every caption of ``captions`` ({id: text}); returns the folder.

    ``elsewhere.jpg`` is judged too, and belongs to no split.
    """
    root.mkdir(parents=True, exist_ok=True)
    (root / CAPTIONS).write_text("".join(f"{k}\t{text}\n" for k, text in captions.items()))
    expert, crowd = [], []
    for i, image in enumerate([*images, "elsewhere.jpg"]):
        for j, caption in enumerate(captions):
            one = 1 + (i * 3 + j * 5 + seed) % 4
            other = 1 + (one + i) % 4
            expert.append(f"{image}\t{caption}\t{one}\t{one}\t{other}\n")
            yes = (i + 2 * j + seed) % 4
            crowd.append(f"{image}\t{caption}\t{yes / 3:.12g}\t{yes}\t{3 - yes}\n")
    (root / EXPERT).write_text("".join(expert))
    (root / CROWD).write_text("".join(crowd))
    return root
