//! The straight line. [`sense`] looks, [`assess`] and [`plan`] are pure, [`act`] is the only writer, [`report`] tells.
