"""Whether the Hugging Face hub can be reached."""

import urllib.error
import urllib.request


def hub_answers() -> bool:
    """Whether the hub answers within ten seconds; to be asked first, because its client retries for a minute offline."""
    from huggingface_hub import constants

    try:
        with urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=10):
            return True
    except urllib.error.HTTPError:      # an error response also shows that there is a network
        return True
    except OSError:
        return False
