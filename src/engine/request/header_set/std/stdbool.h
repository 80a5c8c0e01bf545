// `bool` is a word of the language.
#pragma once
