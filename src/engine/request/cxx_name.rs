//! Names that become C++: of parameters, regions, macros and families to begin with.

/// Keywords and alternative tokens of C++20, which nothing can be named by.
const KEYWORDS: &str = " alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t \
char16_t char32_t class co_await co_return co_yield compl concept const const_cast consteval constexpr \
constinit continue decltype default delete do double dynamic_cast else enum explicit export extern false \
float for friend goto if inline int long mutable namespace new noexcept not not_eq nullptr operator or or_eq \
private protected public register reinterpret_cast requires return short signed sizeof static static_assert \
static_cast struct switch template this thread_local throw true try typedef typeid typename union unsigned \
using virtual void volatile wchar_t while xor xor_eq ";

/// Whether a text is spelled as a name in C++ and in an expression.
pub(crate) fn is_identifier(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.chars().next().is_some_and(first) && text.chars().all(|c| first(c) || c.is_ascii_digit())
}

/// Refuses what C++ cannot have as a name; the text continues "`NAME` ".
pub(crate) fn check_name(text: &str) -> Result<(), &'static str> {
    if !is_identifier(text) {
        return Err("is not a name: letters, digits and `_`");
    }
    if KEYWORDS.split(' ').any(|keyword| keyword == text) {
        return Err("is a keyword of C++: choose another name");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_letters_digits_and_underscores_and_not_keywords() {
        for name in ["x", "_x", "norm_2", "Float", "newer"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", "2x", "a-b", "größe", "a b"] {
            assert!(check_name(name).is_err_and(|e| e.contains("letters")), "{name}");
        }
        for name in [
            "alignas", "new", "float", "switch", "xor_eq", "char16_t", "mutable",
        ] {
            assert!(check_name(name).is_err_and(|e| e.contains("keyword")), "{name}");
        }
    }
}
