# The layer changes nothing of other layers unless the distro asks for it. Without the feature its bbappends are silent
# and its recipes are skipped, which looks like a mistake in the layer; so this says it once per build.
addhandler pyvorin_feature_check
pyvorin_feature_check[doc] = "Says that the layer is there and its distro feature is not"
pyvorin_feature_check[eventmask] = "bb.event.SanityCheck"
python pyvorin_feature_check() {
    if bb.utils.to_boolean(e.data.getVar("PYVORIN_SKIP_FEATURE_CHECK")):
        return
    if "pyvorin-recovery" not in (e.data.getVar("DISTRO_FEATURES") or "").split():
        bb.warn(
            "The layer meta-pyvorin is in BBLAYERS, but 'pyvorin-recovery' is not in DISTRO_FEATURES, so nothing of it "
            "is used. Next: add DISTRO_FEATURES:append = \" pyvorin-recovery\" to the distro, or take the layer out; "
            "PYVORIN_SKIP_FEATURE_CHECK = \"1\" silences this."
        )
}
