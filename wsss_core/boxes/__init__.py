"""From boxes to masks: detectors, the attribution of their detections to pixels, and masks of the objects in boxes."""
