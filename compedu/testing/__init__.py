"""The laws of all methods, for a method of your own: `check_method(MyMethod)`."""

from collections.abc import Callable, Sequence

from compedu.methods import Method
from compedu.testing.knob_laws import (
    defaults_construct,
    the_docstring_is_complete,
    the_ends_of_what_is_legal_work_or_are_refused_by_name,
    the_key_tells_every_setting_apart,
    the_repr_is_the_method,
    values_outside_the_range_are_refused_by_name,
)
from compedu.testing.layer_laws import (
    a_network_with_nothing_to_compress_is_refused_by_name,
    forms_of_other_methods_are_named_or_handled,
    layers_that_stay_are_named_with_the_reason,
    missing_data_and_images_that_do_not_fit_are_refused,
    tied_layers_stay_tied_or_are_named,
    unknown_layers_are_refused_by_name,
    weights_that_are_not_finite_are_refused,
)
from compedu.testing.result_laws import (
    a_file_gives_back_the_same_model_and_its_length_is_the_size,
    another_seed_gives_another_result,
    compressed_layers_mean_their_dense_weights_wherever_they_are_read,
    forward_equals_dense,
    reported_bytes_are_bytes_written,
    the_identity_settings_reproduce_the_model,
    the_input_is_untouched,
    the_result_gives_logits,
    the_same_seed_gives_the_same_result,
    training_can_be_watched_and_cancelled,
)

Law = Callable[[type[Method]], None]
LAWS: tuple[Law, ...] = (
    defaults_construct,
    values_outside_the_range_are_refused_by_name,
    the_ends_of_what_is_legal_work_or_are_refused_by_name,
    the_repr_is_the_method,
    the_key_tells_every_setting_apart,
    the_input_is_untouched,
    the_same_seed_gives_the_same_result,
    another_seed_gives_another_result,
    the_identity_settings_reproduce_the_model,
    the_result_gives_logits,
    forward_equals_dense,
    compressed_layers_mean_their_dense_weights_wherever_they_are_read,
    a_file_gives_back_the_same_model_and_its_length_is_the_size,
    reported_bytes_are_bytes_written,
    layers_that_stay_are_named_with_the_reason,
    unknown_layers_are_refused_by_name,
    forms_of_other_methods_are_named_or_handled,
    tied_layers_stay_tied_or_are_named,
    weights_that_are_not_finite_are_refused,
    a_network_with_nothing_to_compress_is_refused_by_name,
    missing_data_and_images_that_do_not_fit_are_refused,
    training_can_be_watched_and_cancelled,
    the_docstring_is_complete,
)


def check_method(cls: type[Method], laws: Sequence[Law] = LAWS) -> None:
    """Try `laws` on the method class `cls`; raise `AssertionError` that says which ones it breaks, and how.

    A law is tried on small networks and a few images; what a method takes long for takes long here too. A method of a
    package of its own need not be in `METHODS`; its forms have to be in `compedu.forms.FORMS` to be stored.
    """
    broken: dict[str, Exception] = {}
    for law in laws:
        try:
            law(cls)
        except Exception as error:  # whatever a method raises beside what a law allows breaks the law
            broken[law.__name__] = error
    if broken:
        said = "\n".join(f"  {name.replace('_', ' ')}: {_shown(error)}" for name, error in broken.items())
        first = next(iter(broken.values()))
        raise AssertionError(f"{cls.__name__} breaks {len(broken)} of {len(laws)} laws:\n{said}") from first


def _shown(error: Exception) -> str:
    """Return kind and message of an error in one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}{': ' if message else ''}{message}"[:300]


__all__ = ["LAWS", "Law", "check_method"]
