//! What holding two values against an allowance comes to.

/// A value of B beside its partner, element by element in declared precision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// The largest difference.
    pub difference: f64,
    /// The allowance where the difference takes its largest share of it.
    pub allowed: f64,
    /// The largest share of the allowance.
    pub share: f64,
}

impl Comparison {
    /// Nothing differs.
    pub const NONE: Self = Self { difference: 0.0, allowed: 0.0, share: 0.0 };

    /// This and the element whose values are `difference` apart where `allowed` may be.
    #[must_use]
    pub fn with(self, difference: f64, allowed: f64) -> Self {
        if difference == 0.0 {
            return self;
        }
        let difference = if difference.is_nan() { f64::INFINITY } else { difference };
        let share = if allowed > 0.0 { difference / allowed } else { f64::INFINITY };
        self.and(Self { difference, allowed, share })
    }

    /// Both: the larger difference, and the larger share.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let greater = if other.share > self.share { other } else { self };
        Self { difference: self.difference.max(other.difference), ..greater }
    }
}
