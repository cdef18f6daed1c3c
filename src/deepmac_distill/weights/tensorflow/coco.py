"""The classes of COCO by their ids, which the authors' 90 channels go by: channel = id - 1."""

from __future__ import annotations

CHANNELS = 90
_GROUPS = (  # id of the first, and the names from there on; ten ids have no class
    (1, "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant"),
    (
        13,
        "stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe",
    ),
    (27, "backpack, umbrella"),
    (31, "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove"),
    (41, "skateboard, surfboard, tennis racket, bottle"),
    (46, "wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot"),
    (58, "hot dog, pizza, donut, cake, chair, couch, potted plant, bed"),
    (67, "dining table"),
    (70, "toilet"),
    (72, "tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator"),
    (84, "book, clock, vase, scissors, teddy bear, hair drier, toothbrush"),
)
COCO_CLASSES: dict[int, str] = {
    first + place: name for first, names in _GROUPS for place, name in enumerate(names.split(", "))
}
