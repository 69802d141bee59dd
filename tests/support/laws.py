"""The laws of `compedu.testing` and what they are made of, under one name for the tests."""

# ruff: noqa: F401
from compedu.testing import LAWS, check_method
from compedu.testing.knob_laws import (
    DOCUMENTED,
    defaults_construct,
    the_docstring_is_complete,
    the_ends_of_what_is_legal_work_or_are_refused_by_name,
    the_key_tells_every_setting_apart,
    the_repr_is_the_method,
    values_outside_the_range_are_refused_by_name,
)
from compedu.testing.layer_laws import (
    a_network_with_nothing_to_compress_is_refused_by_name,
    every_layer_is_done_or_named,
    forms_of_other_methods_are_named_or_handled,
    layers_that_stay_are_named_with_the_reason,
    missing_data_and_images_that_do_not_fit_are_refused,
    tied_layers_stay_tied_or_are_named,
    unknown_layers_are_refused_by_name,
    weights_that_are_not_finite_are_refused,
)
from compedu.testing.networks import (
    NETWORKS,
    Attentive,
    Odd,
    Tied,
    attentive,
    data,
    lively,
    misfit,
    normalized,
    normalized_linear,
    plain,
    tiny,
)
from compedu.testing.result_laws import (
    CODINGS,
    a_file_gives_back_the_same_model_and_its_length_is_the_size,
    another_seed_gives_another_result,
    by_law,
    compare_with_dense,
    compressed_layers_mean_their_dense_weights_wherever_they_are_read,
    forward_equals_dense,
    reported_bytes_are_bytes_written,
    the_identity_settings_reproduce_the_model,
    the_input_is_untouched,
    the_result_gives_logits,
    the_same_seed_gives_the_same_result,
    training_can_be_watched_and_cancelled,
)
from compedu.testing.trying import (
    LONG,
    QUICK,
    compressed,
    ends,
    logits,
    points,
    quick,
    refused,
    state,
    suited,
    variants,
)
