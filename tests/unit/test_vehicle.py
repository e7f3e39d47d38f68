"""A vehicle's file: what comes along flies, and what cannot fly is refused with the field, its value and what would be valid."""

import numpy as np
import pytest

from robots import vehicle
from robots.vehicle import GRAVITY, PRESETS, SPECS, VehicleError, load

GOOD = (PRESETS / "1kg.toml").read_text()


def changed(tmp_path, field: str, line: str | None):
    """The 1 kg class vehicle's file with one line replaced, or left out for None."""
    lines = [line if old.startswith(f"{field} =") else old for old in GOOD.splitlines()]
    path = tmp_path / "mine.toml"
    path.write_text("\n".join(x for x in lines if x is not None))
    return path


def message(path) -> str:
    with pytest.raises(VehicleError) as caught:
        load(path)
    text = str(caught.value)
    assert "valid: " in text and "\n" not in text
    return text


@pytest.mark.parametrize("name, mass", [("1kg", 1.0), ("80g", 0.08)])
def test_the_presets_lift_half_their_mass_and_more(name, mass):
    v = load(name)
    assert v.name == name and v.mass_kg == mass
    assert v.thrust_max_n > 1.5 * 1.2 * v.mass_kg * GRAVITY
    assert v.inner_rate_hz >= 500 and v.substeps * v.control_rate_hz == v.inner_rate_hz
    assert load(PRESETS / f"{name}.toml") == v


def test_every_preset_is_known_by_name():
    assert vehicle.presets() == ["1kg", "80g"]


@pytest.mark.parametrize("field", SPECS)
def test_a_missing_field_is_named(tmp_path, field):
    text = message(changed(tmp_path, field, None))
    assert "mine.toml" in text and f"{field} is missing" in text and vehicle.usage(field) in text


@pytest.mark.parametrize("field", SPECS)
@pytest.mark.parametrize("value", ['"heavy"', "true", "nan", "inf", "-1.0", "[1.0, 2.0]", "[1.0, 2.0, -3.0]", "{}"])
def test_a_bad_value_is_named_with_what_would_be_valid(tmp_path, field, value):
    text = message(changed(tmp_path, field, f"{field} = {value}"))
    assert f"mine.toml: {field} = " in text and vehicle.usage(field) in text


@pytest.mark.parametrize(
    "field, line, why",
    [
        ("mass_kg", "mass_g = 1000", "mass_g = 1000 has another unit or none; valid: mass_kg = a number above 0"),
        ("mass_kg", "mass = 1", "mass = 1 has another unit or none; valid: mass_kg"),
        ("arm_m", "arm_mm = 170", "valid: arm_m"),
        ("rotor_thrust_max_n", "rotor_thrust_max_g = 600", "valid: rotor_thrust_max_n"),
        ("rate_max_rad_s", "rate_max_deg_s = [400, 400, 100]", "valid: rate_max_rad_s = three numbers"),
        ("inner_rate_hz", "inner_rate_khz = 1", "inner_rate_khz = 1 has another unit or none; valid: inner_rate_hz"),
        ("rotor_time_constant_s", "rotor_time_constant_ms = 20", "valid: rotor_time_constant_s"),
        ("inertia_kg_m2", "inertai_kg_m2 = [1, 1, 1]", "is misspelt; valid: inertia_kg_m2"),
        ("arm_m", "colour = 3", "colour = 3 is no field; valid: mass_kg, arm_m"),
        ("mass_kg", "mass_kg = 0", "is not positive"),
        ("drag_n_s_per_m", "drag_n_s_per_m = [0.1, 0.1, -0.1]", "is negative"),
        ("inner_rate_hz", "inner_rate_hz = 400", "is too small; valid: inner_rate_hz = a number at least 500"),
        ("control_rate_hz", "control_rate_hz = 200", "is too large"),
        ("control_rate_hz", "control_rate_hz = 70", "inner_rate_hz = 1000 is no multiple of control_rate_hz = 70"),
        ("inertia_kg_m2", "inertia_kg_m2 = [0.01, 0.01, 0.03]", "[0.01, 0.01, 0.03] belongs to no rigid body"),
        ("rotor_thrust_max_n", "rotor_thrust_max_n = 2.4", "thrust-to-weight is 0.98; valid: above 1"),
        ("mass_kg", "mass_kg = 1000", "rotor_thrust_max_n = 6 does not lift mass_kg = 1000"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(tmp_path, field, line, why):
    assert why in message(changed(tmp_path, field, line))


def test_a_vehicle_without_drag_is_possible(tmp_path):
    assert load(changed(tmp_path, "drag_n_s_per_m", "drag_n_s_per_m = [0, 0, 0]")).drag_n_s_per_m == (0, 0, 0)


def test_a_file_that_is_not_there_or_not_toml_is_named(tmp_path):
    assert "'2kg'" in message("2kg") and "1kg, 80g" in message("2kg")
    path = tmp_path / "broken.toml"
    path.write_text("mass_kg 1.0")
    assert "broken.toml is not TOML" in message(path)


def test_actions_span_the_commands():
    v = load("1kg")
    np.testing.assert_allclose(v.command(np.array([-1.0, 0, 0, 0])), [0, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(v.command(np.ones(4)), [24, 8, 8, 3])
    commands = np.random.default_rng(0).uniform(0, 5, (7, 4))
    np.testing.assert_allclose(v.command(v.action(commands)), commands)


def test_rotors_turn_the_body_the_way_their_place_says():
    # x forward, y left, z up: more thrust on the left rolls right (+x), at the back pitches down (+y).
    v = load("1kg")
    left, back = np.array([1.0, 1, 0, 0]), np.array([0.0, 1, 1, 0])
    arm = 2 * v.arm_m / np.sqrt(2)
    np.testing.assert_allclose(v.allocation @ left, [2, arm, 0, 0], atol=1e-12)
    np.testing.assert_allclose(v.allocation @ back, [2, 0, arm, 0], atol=1e-12)
    np.testing.assert_allclose(v.allocation @ [1, 0, 1, 0], [2, 0, 0, 2 * v.rotor_torque_per_thrust_m], atol=1e-12)
