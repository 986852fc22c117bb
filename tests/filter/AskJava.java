import java.io.StringReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import org.apache.rocketmq.filter.expression.*;
import org.apache.rocketmq.filter.parser.SelectorParser;

/** Writes expressions, properties, and what RocketMQ's own parser says of them. See README.md. */
public class AskJava {
    static final Random R = new Random(92);
    static final String[] NAMES = {"a", "b", "c", "d", "_x$1", "TAGS", "missing"};
    static final String[] VALUES = {"0", "1", "-1", "+2", "2", "3", "007", "1.0", "1.5", "-0.0", ".5", "5.", "1e3", "1E400", "2147483648",
        "-9223372036854775808", "9223372036854775807", "9223372036854775808", "true", "TRUE", "false", "yes", "x", "xyz", "it's", " 1", "1 ",
        " 1.5 ", "1d", "2f", "NaN", "nan", "-Infinity", "inf", "中文", "é", "-", "+", "1_0", "0x10", "1,5", "%", "''"};
    static final String[] LITERALS = {"0", "1", "2", "3", "10", "2147483647", "2147483648", "5L", "3000000000l", "9223372036854775807",
        "1.0", "1.5", ".5", "5.", "5.E1", "1E3", "2e-3", "100.25", "'x'", "'xyz'", "'1'", "'1.5'", "'it''s'", "''", "'true'", "'中文'",
        "TRUE", "false", "NULL", "true"};
    static final String[] NUMBERS = {"0", "1", "2", "3", "1.0", "1.5", ".5", "1E3", "2147483648", "-1", "- 1.5", "+1"};
    static final String[] TEXTS = {"'x'", "'xyz'", "'1'", "'y'", "''", "'it''s'", "'中'", "' '", "'TRUE'"};
    static final String[] BAD = {"!=", "==", "\"x\"", "(", ")", "NOT", "AND", "IS", "'", "--", "/*", ",", "LIKE", "+", "*", "0x1", "00", "1a", "#", "é",
        "1.5L", "1e400", "9223372036854775808", "0.0", "a.b", "IN ()", "IS NOT"};

    static String one(String[] of) { return of[R.nextInt(of.length)]; }
    static String blank() { String[] b = {" ", " ", " ", "  ", "\n", "\t", " /* c */ ", " -- c\n"}; return one(b); }
    static String word(String w) { switch (R.nextInt(3)) { case 0: return w.toLowerCase(); case 1: return w; default:
        StringBuilder s = new StringBuilder(); for (char c : w.toCharArray()) s.append(R.nextBoolean() ? Character.toLowerCase(c) : c); return s.toString(); } }
    static String name() { return one(NAMES); }

    static String value(int depth) {
        switch (R.nextInt(10)) {
            case 0: return "-" + (R.nextBoolean() ? " " : "") + value(depth);
            case 1: return "+" + value(depth);
            case 2: return depth > 0 ? "(" + or(depth - 1) + ")" : name();
            case 3: case 4: case 5: return name();
            default: return one(LITERALS);
        }
    }

    static String condition(int depth) {
        String v = R.nextInt(3) > 0 ? name() : value(depth);
        String not = R.nextInt(3) == 0 ? word("NOT") + blank() : "";
        switch (R.nextInt(12)) {
            case 0: case 1: return v + blank() + one(new String[] {">", ">=", "<", "<="}) + blank() + (R.nextInt(4) > 0 ? one(NUMBERS) : value(depth));
            case 2: case 3: return v + one(new String[] {"=", "<>", " = ", " <> "}) + value(depth);
            case 4: return v + blank() + word("IS") + blank() + not + word("NULL");
            case 5: return v + blank() + not + word("BETWEEN") + blank() + one(NUMBERS) + blank() + word("AND") + blank() + (R.nextInt(4) > 0 ? one(NUMBERS) : value(depth));
            case 6: { StringBuilder s = new StringBuilder(v + blank() + not + word("IN") + " ("); int n = 1 + R.nextInt(7);
                for (int i = 0; i < n; i++) s.append(i > 0 ? "," : "").append(one(TEXTS)); return s + ")"; }
            case 7: return v + blank() + not + word("CONTAINS") + blank() + one(TEXTS);
            case 8: return v + blank() + not + word(R.nextBoolean() ? "STARTSWITH" : "ENDSWITH") + blank() + one(TEXTS);
            case 9: return name();
            case 10: return depth > 0 ? "(" + or(depth - 1) + ")" : name() + " = 1";
            default: return v + " = " + one(LITERALS);
        }
    }

    static String unary(int depth) { return R.nextInt(6) == 0 ? word("NOT") + " " + unary(depth) : condition(depth); }
    static String and(int depth) { String s = unary(depth); while (R.nextInt(3) == 0) s += blank() + word("AND") + blank() + unary(depth); return s; }
    static String or(int depth) { String s = and(depth); while (R.nextInt(4) == 0) s += blank() + word("OR") + blank() + and(depth); return s; }

    static String expression() {
        String text = or(2);
        while (text.length() > 160) text = or(2);
        if (R.nextInt(5) > 0) return text;
        int at = R.nextInt(text.length() + 1), to = Math.min(text.length(), at + R.nextInt(4));
        switch (R.nextInt(4)) {
            case 0: return text.substring(0, at);
            case 1: return text.substring(0, at) + text.substring(to);
            case 2: return text + " " + one(BAD);
            default: return text.substring(0, at) + " " + one(BAD) + " " + text.substring(at);
        }
    }

    static BooleanExpression parse(String text, boolean[] rest) throws Exception {
        ComparisonExpression.CONVERT_STRING_EXPRESSIONS.set(true);
        SelectorParser parser = new SelectorParser(new StringReader(text));
        BooleanExpression made = parser.JmsSelector();
        try { rest[0] = parser.getNextToken().kind != 0; } catch (Throwable wrong) { rest[0] = true; }
        return made;
    }

    static String escaped(String s) { return s.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t"); }

    public static void main(String[] args) throws Exception {
        StringBuilder out = new StringBuilder();
        for (int i = 0; i < 3000; i++) {
            String text = expression();
            if (text.isEmpty()) continue;
            boolean[] rest = {false};
            BooleanExpression made;
            try { made = parse(text, rest); } catch (Throwable wrong) { out.append(escaped(text)).append("\trefused\n"); continue; }
            if (rest[0]) { out.append(escaped(text)).append("\tmore behind it\n"); continue; }
            out.append(escaped(text)).append('\n');
            for (int n = 0; n < 3; n++) {
                Map<String, String> properties = new TreeMap<>();
                for (String name : NAMES) if (!name.equals("missing") && R.nextInt(4) > 0) properties.put(name, one(VALUES));
                String said;
                try {
                    Object is = made.evaluate(new EvaluationContext() {
                        public Object get(String name) { return properties.get(name); }
                        public Map<String, Object> keyValues() { return new HashMap<>(properties); }
                    });
                    said = String.valueOf(is);
                } catch (Throwable wrong) { said = "error"; }
                out.append('\t').append(said);
                properties.forEach((k, v) -> out.append('\t').append(k).append('=').append(v));
                out.append('\n');
            }
        }
        Files.write(Paths.get(args[0]), out.toString().getBytes(StandardCharsets.UTF_8));
    }
}
