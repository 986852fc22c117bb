//! From tokens to conditions. Each function is a rule of `SelectorParser.jj`, the weakest first.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::token::{Placed, Token, Word, tokens, wrong};
use super::value::Constant;
use super::{DEPTH_MAX, Sql, SqlError};

/// A condition or a value.
#[derive(Debug, Clone)]
pub(super) enum Node {
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Equal(Box<Node>, Box<Node>),
    Order(Box<Node>, Order, Box<Node>),
    /// The property is one of the texts, which are sorted.
    In(usize, Vec<Box<str>>),
    Search {
        within: Box<Node>,
        wanted: Part,
        text: Box<str>,
        /// Whether it is to be found.
        found: bool,
    },
    /// The property with that number.
    Property(usize),
    Constant(Constant),
    Negative(Box<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Order {
    pub(super) fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
        }
    }
}

/// Where a text is to be found in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Anywhere,
    Begin,
    End,
}

impl Part {
    pub(super) fn is_in(self, text: &str, within: &str) -> bool {
        match self {
            Self::Anywhere => within.contains(text),
            Self::Begin => within.starts_with(text),
            Self::End => within.ends_with(text),
        }
    }
}

/// What a rule made, and how deep it is nested.
struct Made {
    node: Node,
    depth: usize,
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Placed<'a>>,
    at: usize,
    /// Rules that are being worked at.
    depth: usize,
    names: HashMap<&'a str, usize>,
}

pub(super) fn parse(text: &str) -> Result<Sql, SqlError> {
    let mut parser = Parser { text, tokens: tokens(text), at: 0, depth: 0, names: HashMap::new() };
    let root = parser.or()?;
    let root = parser.condition(0, root)?.node;
    // A remark to whose end no line end stands is no comment in Java, which does not look at what follows.
    let is_remark = text[parser.byte()..].starts_with("--");
    if *parser.next() != Token::End && !is_remark {
        return Err(parser.expected("AND, OR or the end"));
    }
    let mut names: Vec<_> = parser.names.into_iter().map(|(name, number)| (name.into(), number)).collect();
    names.sort();
    Ok(Sql { root, names })
}

impl<'a> Parser<'a> {
    fn or(&mut self) -> Result<Made, SqlError> {
        self.list(Word::Or, Node::Or, Self::and)
    }

    fn and(&mut self) -> Result<Made, SqlError> {
        self.list(Word::And, Node::And, Self::equality)
    }

    /// Reads conditions with a word between them, or whatever stands there alone.
    fn list(
        &mut self,
        word: Word,
        make: fn(Vec<Node>) -> Node,
        part: fn(&mut Self) -> Result<Made, SqlError>,
    ) -> Result<Made, SqlError> {
        let begin = self.byte();
        let first = part(self)?;
        if *self.next() != Token::Word(word) {
            return Ok(first);
        }
        let first = self.condition(begin, first)?;
        let (mut parts, mut depth) = (vec![first.node], first.depth);
        while self.take_word(word) {
            let begin = self.byte();
            let made = part(self)?;
            let made = self.condition(begin, made)?;
            depth = depth.max(made.depth);
            parts.push(made.node);
        }
        self.made(make(parts), depth)
    }

    fn equality(&mut self) -> Result<Made, SqlError> {
        let mut left = self.comparison()?;
        loop {
            let at = self.byte();
            let not_equal = *self.next() == Token::Sign("<>");
            if not_equal || *self.next() == Token::Sign("=") {
                self.at += 1;
                let right = self.comparison()?;
                self.check_equal(at, &left.node, &right.node)?;
                let depth = left.depth.max(right.depth);
                left = self.equal(left.node, right.node, not_equal, depth)?;
            } else if self.take_word(Word::Is) {
                let not = self.take_word(Word::Not);
                if !self.take_word(Word::Null) {
                    return Err(self.expected(if not { "NULL" } else { "NULL or NOT NULL" }));
                }
                left = self.equal(left.node, Node::Constant(Constant::Null), not, left.depth)?;
            } else {
                return Ok(left);
            }
        }
    }

    fn equal(&self, left: Node, right: Node, not: bool, depth: usize) -> Result<Made, SqlError> {
        let equal = Node::Equal(Box::new(left), Box::new(right));
        self.made(if not { Node::Not(Box::new(equal)) } else { equal }, depth)
    }

    fn check_equal(&self, at: usize, left: &Node, right: &Node) -> Result<(), SqlError> {
        match (left, right) {
            (Node::Constant(Constant::Null), _) | (_, Node::Constant(Constant::Null)) => {
                Err(wrong(self.text, at, "nothing equals NULL; write IS NULL or IS NOT NULL"))
            }
            (Node::Constant(Constant::Bool(_)), Node::Constant(right))
                if !matches!(right, Constant::Bool(_)) =>
            {
                Err(wrong(self.text, at, "TRUE and FALSE equal no number or text"))
            }
            _ => Ok(()),
        }
    }

    fn comparison(&mut self) -> Result<Made, SqlError> {
        let mut left = self.unary()?;
        loop {
            let at = self.byte();
            let order = match self.next() {
                Token::Sign(">") => Some(Order::Greater),
                Token::Sign(">=") => Some(Order::GreaterOrEqual),
                Token::Sign("<") => Some(Order::Less),
                Token::Sign("<=") => Some(Order::LessOrEqual),
                _ => None,
            };
            if let Some(order) = order {
                self.at += 1;
                let right = self.unary()?;
                let depth = left.depth.max(right.depth);
                let node = self.order(at, left.node, order, right.node)?;
                left = self.made(node, depth)?;
                continue;
            }
            let not = *self.next() == Token::Word(Word::Not);
            let word = match &self.tokens[(self.at + usize::from(not)).min(self.tokens.len() - 1)].1 {
                Token::Word(word) => *word,
                _ => return Ok(left),
            };
            let part = match word {
                Word::Between | Word::In => None,
                Word::Contains => Some(Part::Anywhere),
                Word::StartsWith => Some(Part::Begin),
                Word::EndsWith => Some(Part::End),
                _ => return Ok(left),
            };
            self.at += 1 + usize::from(not);
            left = match (part, word) {
                (Some(wanted), _) => {
                    let (within, text) = (Box::new(left.node), self.text()?);
                    self.made(Node::Search { within, wanted, text, found: !not }, left.depth)?
                }
                (None, Word::In) => self.within(at, &left.node, not)?,
                (None, _) => self.between(at, left, not)?,
            };
        }
    }

    fn order(&self, at: usize, left: Node, order: Order, right: Node) -> Result<Node, SqlError> {
        for side in [&left, &right] {
            let has_order = match side {
                Node::Constant(constant) => constant.is_number(),
                Node::Property(_) | Node::Negative(_) => true,
                _ => false,
            };
            if !has_order {
                return Err(wrong(self.text, at, "only numbers and properties have an order"));
            }
        }
        Ok(Node::Order(Box::new(left), order, Box::new(right)))
    }

    fn between(&mut self, at: usize, value: Made, not: bool) -> Result<Made, SqlError> {
        let low = self.unary()?;
        if !self.take_word(Word::And) {
            return Err(self.expected("AND and a second value"));
        }
        let high = self.unary()?;
        let depth = value.depth.max(low.depth).max(high.depth);
        if let (Node::Constant(low), Node::Constant(high), false) = (&low.node, &high.node, not)
            && high.value().compare(low.value()) == Ok(Some(Ordering::Less))
        {
            return Err(wrong(self.text, at, "BETWEEN has its higher value first"));
        }
        let (first, second) =
            if not { (Order::Less, Order::Greater) } else { (Order::GreaterOrEqual, Order::LessOrEqual) };
        let parts = vec![
            self.order(at, value.node.clone(), first, low.node)?,
            self.order(at, value.node, second, high.node)?,
        ];
        // In the list, each is one deeper.
        self.made(if not { Node::Or(parts) } else { Node::And(parts) }, depth + 1)
    }

    fn within(&mut self, at: usize, value: &Node, not: bool) -> Result<Made, SqlError> {
        self.take_sign("(")?;
        let mut texts = vec![self.text()?];
        while *self.next() == Token::Sign(",") {
            self.at += 1;
            texts.push(self.text()?);
        }
        self.take_sign(")")?;
        let Node::Property(property) = value else {
            return Err(wrong(self.text, at, "IN is for properties"));
        };
        texts.sort();
        let node = Node::In(*property, texts);
        self.made(if not { Node::Not(Box::new(node)) } else { node }, 1)
    }

    fn unary(&mut self) -> Result<Made, SqlError> {
        let at = self.byte();
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.too_deep(at));
        }
        let made = match self.next() {
            Token::Sign("+") => {
                self.at += 1;
                self.unary()?
            }
            Token::Sign("-") => {
                self.at += 1;
                let of = self.unary()?;
                self.made(Node::Negative(Box::new(of.node)), of.depth)?
            }
            Token::Word(Word::Not) => {
                self.at += 1;
                let begin = self.byte();
                let of = self.unary()?;
                let of = self.condition(begin, of)?;
                self.made(Node::Not(Box::new(of.node)), of.depth)?
            }
            _ => self.primary()?,
        };
        self.depth -= 1;
        Ok(made)
    }

    fn primary(&mut self) -> Result<Made, SqlError> {
        let node = match &self.tokens[self.at].1 {
            Token::Sign("(") => {
                self.at += 1;
                let inner = self.or()?;
                self.take_sign(")")?;
                return Ok(inner);
            }
            Token::Name(name) => {
                let count = self.names.len();
                Node::Property(*self.names.entry(name).or_insert(count))
            }
            Token::Constant(constant) => Node::Constant(constant.clone()),
            Token::Word(Word::True) => Node::Constant(Constant::Bool(true)),
            Token::Word(Word::False) => Node::Constant(Constant::Bool(false)),
            Token::Word(Word::Null) => Node::Constant(Constant::Null),
            Token::End => return Err(wrong(self.text, self.byte(), "a value or a property is missing")),
            _ => return Err(self.expected("a value or a property")),
        };
        self.at += 1;
        self.made(node, 0)
    }

    fn text(&mut self) -> Result<Box<str>, SqlError> {
        match &self.tokens[self.at].1 {
            Token::Constant(Constant::Text(text)) => {
                self.at += 1;
                Ok(text.clone())
            }
            _ => Err(self.expected("a text in ''")),
        }
    }

    /// Takes what was made for a condition, if it can be one.
    fn condition(&self, at: usize, made: Made) -> Result<Made, SqlError> {
        match &made.node {
            Node::Negative(_) => Err(wrong(self.text, at, "this is no condition")),
            Node::Constant(constant) if !matches!(constant, Constant::Bool(_) | Constant::Null) => {
                Err(wrong(self.text, at, "this is no condition"))
            }
            _ => Ok(made),
        }
    }

    fn made(&self, node: Node, inner: usize) -> Result<Made, SqlError> {
        let depth = inner + 1;
        if depth > DEPTH_MAX { Err(self.too_deep(self.byte())) } else { Ok(Made { node, depth }) }
    }

    fn too_deep(&self, at: usize) -> SqlError {
        wrong(self.text, at, format!("this is nested deeper than {DEPTH_MAX}"))
    }

    fn next(&self) -> &Token<'a> {
        &self.tokens[self.at].1
    }

    /// Returns where the next token begins.
    fn byte(&self) -> usize {
        self.tokens[self.at].0
    }

    fn take_word(&mut self, word: Word) -> bool {
        let is = *self.next() == Token::Word(word);
        self.at += usize::from(is);
        is
    }

    fn take_sign(&mut self, sign: &str) -> Result<(), SqlError> {
        match self.next() {
            Token::Sign(is) if *is == sign => {
                self.at += 1;
                Ok(())
            }
            Token::End => Err(wrong(self.text, self.byte(), format!("{sign} is missing"))),
            _ => Err(self.expected(sign)),
        }
    }

    fn expected(&self, what: &str) -> SqlError {
        if let Token::Wrong(error) = self.next() {
            return error.clone();
        }
        let from = self.byte();
        let to = self.tokens.get(self.at + 1).map_or(self.text.len(), |(next, _)| *next);
        let found = self.text[from..to].trim();
        let found = if found.is_empty() { "the end" } else { found };
        wrong(self.text, from, format!("{what} was expected, not {found}"))
    }
}
